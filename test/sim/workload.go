package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const topic = "sim"

// value is the head of every record's value: producer, sequence in the partition, then noise, then a CRC-32C of it all.
type value struct{ producer, seq uint32 }

func build(v value, size int) []byte {
	b := make([]byte, 8, 12+size)
	binary.BigEndian.PutUint32(b, v.producer)
	binary.BigEndian.PutUint32(b[4:], v.seq)
	for i := range size {
		b = append(b, byte('a'+i%8))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func parse(b []byte) (value, bool) {
	if len(b) < 12 {
		return value{}, false
	}
	n := len(b) - 4
	v := value{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	return v, crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)) == binary.BigEndian.Uint32(b[n:])
}

// ack is one acknowledged record.
type ack struct {
	value
	offset int64
}

// ledger is what was sent and acknowledged, per partition, in the order of the acknowledgements.
type ledger struct {
	mu    sync.Mutex
	acks  [][]ack
	ended []time.Time // of the last acknowledgement: how long each partition was silent
	gap   time.Duration
}

func newLedger(partitions int) *ledger {
	return &ledger{acks: make([][]ack, partitions), ended: make([]time.Time, partitions)}
}

func (l *ledger) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acks {
		n += len(a)
	}
	return n
}

func (c *cluster) acknowledged(r *kgo.Record, err error) {
	if err != nil {
		c.failf("a producer gave up a record of partition %d: %w", r.Partition, err)
		return
	}
	v, _ := parse(r.Value)
	l := c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks[r.Partition] = append(l.acks[r.Partition], ack{v, r.Offset})
	now := time.Now()
	if last := l.ended[r.Partition]; !last.IsZero() {
		l.gap = max(l.gap, now.Sub(last))
	}
	l.ended[r.Partition] = now
}

// produce sends records of one idempotent producer to all partitions until ctx ends, then waits for what is under way until
// deadline ends.
func (c *cluster) produce(ctx, deadline context.Context, id uint32, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(id)))
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression(), kgo.GzipCompression()}
	cl, err := kgo.NewClient(c.client(
		kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[int(id)%len(codecs)]), kgo.ProducerLinger(2*time.Millisecond),
		kgo.RecordRetries(1_000_000_000), kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(200),
		kgo.ProduceRequestTimeout(2*time.Second), c.clientLog(fmt.Sprintf("producer %d", id)),
	)...)
	if err != nil {
		c.fail(err)
		return
	}
	defer cl.Close()
	// The client's connections wait for its id with a mutex, in which no bubble's time goes on: it is got before there are any.
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		if _, _, err := cl.ProducerID(ctx); err == nil {
			break
		}
	}
	seqs := make([]uint32, c.plan.partitions)
	for pause(ctx, time.Duration(5+rng.IntN(40))*time.Millisecond) {
		for range 1 + rng.IntN(4) {
			p := rng.IntN(len(seqs))
			r := &kgo.Record{Partition: int32(p), Value: build(value{id, seqs[p]}, 20+rng.IntN(100))}
			seqs[p]++
			cl.Produce(deadline, r, c.acknowledged)
		}
	}
	if err := cl.Flush(deadline); err != nil {
		c.failf("producer %d has records that nobody takes: %w", id, err)
	}
}

// seen is what a reader found in one partition, by offset.
type seen struct {
	vals   []value
	times  []int64           // timestamps, in milliseconds
	next   map[uint32]uint32 // each producer's next sequence
	astray bool              // what comes is not what is next, and that was said
}

// reader reads every partition from offset 0.
type reader struct {
	c     *cluster
	name  string
	parts []seen
}

func (c *cluster) newReader(name string) *reader {
	r := &reader{c: c, name: name, parts: make([]seen, c.plan.partitions)}
	for i := range r.parts {
		r.parts[i].next = map[uint32]uint32{}
	}
	return r
}

func (r *reader) take(rec *kgo.Record) {
	p := &r.parts[rec.Partition]
	if want := int64(len(p.vals)); rec.Offset != want {
		if !p.astray {
			r.c.failf("%s: partition %d: offset %d follows %d (skipped or repeated)", r.name, rec.Partition, rec.Offset, want-1)
		}
		p.astray = true
		return
	}
	p.astray = false
	v, ok := parse(rec.Value)
	if !ok {
		r.c.failf("%s: partition %d offset %d: the value is damaged", r.name, rec.Partition, rec.Offset)
	}
	if want := p.next[v.producer]; v.seq != want {
		r.c.failf("%s: partition %d offset %d: producer %d has sequence %d, want %d (lost, duplicated or reordered)",
			r.name, rec.Partition, rec.Offset, v.producer, v.seq, want)
	}
	p.next[v.producer] = v.seq + 1
	p.vals, p.times = append(p.vals, v), append(p.times, rec.Timestamp.UnixMilli())
}

func (r *reader) client() (*kgo.Client, error) {
	return kgo.NewClient(r.c.client(
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond),
		r.c.clientLog(r.name),
	)...)
}

func (c *cluster) clientLog(name string) kgo.Opt {
	return kgo.WithLogger(clientLog{c.log.With(slog.String("client", name))})
}

// clientLog is where a client tells what it makes of what it is answered.
type clientLog struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (clientLog) Level() kgo.LogLevel { return kgo.LogLevelInfo }

// Log implements kgo.Logger.
func (l clientLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.log.Info("client", slog.String("what", msg), slog.String("of", fmt.Sprint(keyvals...)))
}

// follow reads along until ctx ends.
func (r *reader) follow(ctx context.Context) {
	cl, err := r.client()
	if err != nil {
		r.c.fail(err)
		return
	}
	defer cl.Close()
	for ctx.Err() == nil {
		r.poll(ctx, cl)
	}
}

func (r *reader) poll(ctx context.Context, cl *kgo.Client) {
	fs := cl.PollFetches(ctx)
	fs.EachError(func(_ string, p int32, err error) {
		var lost *kgo.ErrDataLoss
		if errors.As(err, &lost) {
			at, _ := r.c.ofTopic(p)
			r.c.failf("%s: partition %d (now %+v): the client reports data loss: %w", r.name, p, at, err)
		}
	})
	fs.EachRecord(r.take)
}

// readTo reads each partition up to an end, as far as it comes before ctx ends.
func (r *reader) readTo(ctx context.Context, ends []int64) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		missing := int64(0)
		for p, end := range ends {
			missing += max(0, end-int64(len(r.parts[p].vals)))
		}
		if missing == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %d records are not delivered: %w", r.name, missing, ctx.Err())
		}
		r.poll(ctx, cl)
	}
}
