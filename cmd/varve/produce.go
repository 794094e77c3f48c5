package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/cmd/varve/load"
)

// maxLineBytes bounds one input line; the broker's max.message.bytes is smaller by default.
const maxLineBytes = 64 << 20

// produceOptions are the flags of `varve produce`.
type produceOptions struct {
	separator   string
	headers     []string
	partition   int32
	acks        string
	compression string
	tombstones  bool
}

type produceReport struct {
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`
	Failed  int64 `json:"failed"`
}

func newProduceCommand(a *app) *cobra.Command {
	var o produceOptions
	c := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Produce one record per line of standard input",
		Example: `  printf 'k1:v1\nk2:v2\n' | varve produce orders --key-separator :
  varve produce logs --header host=web1 --compression zstd < access.log`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.produce(cmd.Context(), args[0], o) },
	}
	f := c.Flags()
	f.StringVarP(&o.separator, "key-separator", "k", "", "what stands between key and value; without it lines have no key")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "name=value for every record; may be repeated")
	f.Int32VarP(&o.partition, "partition", "p", -1, "partition (-1: by key, or spread)")
	f.StringVar(&o.acks, "acks", "all", "all (idempotent), leader or none")
	f.StringVar(&o.compression, "compression", "none", "none, gzip, snappy, lz4 or zstd")
	f.BoolVarP(&o.tombstones, "null-values", "Z", false, "with --key-separator: an empty value is a null, which deletes the key in a compacted topic")
	return c
}

func (a *app) produce(ctx context.Context, topic string, o produceOptions) error {
	opts, err := o.clientOpts()
	if err != nil {
		return err
	}
	headers, err := o.recordHeaders()
	if err != nil {
		return err
	}
	cl, err := a.dial(ctx, append(opts, kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	s := &sender{cl: cl}
	err = eachLine(a.in, func(line []byte) error {
		r, err := o.record(line)
		if err != nil {
			return err
		}
		r.Headers = headers
		s.send(ctx, r)
		return ctx.Err()
	})
	if err != nil {
		err = fmt.Errorf("read input: %w", err)
	}
	err = errors.Join(err, cl.Flush(ctx))
	report := s.report()
	if a.output == "json" {
		err = errors.Join(err, a.printJSON(report))
	} else {
		a.warn("%d records, %d bytes produced to %s", report.Records, report.Bytes, topic)
	}
	return errors.Join(err, s.failure())
}

func (o produceOptions) clientOpts() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	switch o.acks {
	case "all":
	case "leader", "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "none", "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, fmt.Errorf("--acks %q: choose all, leader or none", o.acks)
	}
	codec, err := load.Codec(o.compression)
	if err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	if o.partition >= 0 {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	return append(opts, kgo.ProducerBatchCompression(codec)), nil
}

func (o produceOptions) recordHeaders() ([]kgo.RecordHeader, error) {
	names, values, err := parsePairs("header", o.headers)
	if err != nil {
		return nil, err
	}
	var hs []kgo.RecordHeader
	for i := range names {
		hs = append(hs, kgo.RecordHeader{Key: names[i], Value: []byte(values[i])})
	}
	return hs, nil
}

// record makes a record of a line.
func (o produceOptions) record(line []byte) (*kgo.Record, error) {
	r := &kgo.Record{Value: line, Partition: max(o.partition, 0)}
	if o.separator == "" {
		return r, nil
	}
	key, value, ok := strings.Cut(string(line), o.separator)
	if !ok {
		return nil, fmt.Errorf("line %.40q has no key separator %q", line, o.separator)
	}
	r.Key, r.Value = []byte(key), []byte(value)
	if value == "" && o.tombstones {
		r.Value = nil
	}
	return r, nil
}

// eachLine calls fn with a copy of every line, without its end.
func eachLine(in io.Reader, fn func([]byte) error) error {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 64<<10), maxLineBytes)
	for n := 1; s.Scan(); n++ {
		if err := fn(append([]byte{}, s.Bytes()...)); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return s.Err()
}

// sender counts what became of the records. The client calls back from its own goroutine.
type sender struct {
	cl *kgo.Client
	mu struct {
		sync.Mutex
		produceReport
		first error
	}
}

func (s *sender) send(ctx context.Context, r *kgo.Record) {
	s.cl.Produce(ctx, r, func(r *kgo.Record, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.mu.Failed++
			if s.mu.first == nil {
				s.mu.first = err
			}
			return
		}
		s.mu.Records++
		s.mu.Bytes += int64(len(r.Key) + len(r.Value))
	})
}

func (s *sender) report() produceReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.produceReport
}

func (s *sender) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d records were not acknowledged: %w", s.mu.Failed, s.mu.first)
}
