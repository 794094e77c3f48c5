// Command franz is the franz-go client of test/clients; the protocol is in that folder's doc.go.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

const (
	chunk    = 20
	patience = 2 * time.Minute
)

func main() {
	if err := roundTrip(os.Args[1], os.Args[2], number(os.Args[3]), number(os.Args[4])); err != nil {
		fmt.Fprintln(os.Stderr, "franz:", err)
		os.Exit(1)
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // the harness is wrong
	}
	return n
}

func roundTrip(broker, prefix string, rounds, records int) error {
	ctx := context.Background()
	producers := map[string]*kgo.Client{}
	var topics []string
	for name, codec := range codecs {
		p, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(prefix+"-"+name))
		if err != nil {
			return err
		}
		defer p.Close()
		producers[name] = p
		topics = append(topics, prefix+"-"+name)
	}
	if _, err := kadm.NewClient(producers["none"]).CreateTopics(ctx, 3, 1, nil, topics...); err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumerGroup(prefix+"-group"), kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		return err
	}
	defer consumer.Close()
	stdin, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	seen := map[string]bool{}
	for round := range rounds {
		if round > 0 {
			fmt.Fprintln(out, "HALF")
			_ = out.Flush()
			if _, err := stdin.ReadString('\n'); err != nil {
				return err
			}
		}
		if err := produce(ctx, producers, round*records, (round+1)*records); err != nil {
			return err
		}
		if err := consume(ctx, consumer, out, seen, (round+1)*records*len(codecs)); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "OK records=%d\n", len(seen))
	return out.Flush()
}

func produce(ctx context.Context, producers map[string]*kgo.Client, from, to int) error {
	for start := from; start < to; start += chunk {
		for name, p := range producers {
			var batch []*kgo.Record
			for i := start; i < min(start+chunk, to); i++ {
				batch = append(batch, record(name, i))
			}
			if err := p.ProduceSync(ctx, batch...).FirstErr(); err != nil {
				return fmt.Errorf("produce %s: %w", name, err)
			}
		}
	}
	return nil
}

// record is expected(full, codec, i) of the harness.
func record(codec string, i int) *kgo.Record {
	repeats := i % 50
	if i%97 == 96 {
		repeats = 5000
	}
	r := &kgo.Record{
		Key:   []byte("k" + strconv.Itoa(i%17)),
		Value: []byte(fmt.Sprintf("%s-%d-%s", codec, i, strings.Repeat("varve ", repeats))),
		Headers: []kgo.RecordHeader{
			{Key: "seq", Value: []byte(strconv.Itoa(i))}, {Key: "bytes", Value: []byte{0, 255, byte(i)}},
			{Key: "empty", Value: []byte{}}, {Key: "null"},
		},
	}
	if i%10 == 9 {
		r.Key = nil
	}
	if i%13 == 12 && r.Key != nil {
		r.Value = nil
	}
	return r
}

// consume polls until so many different records have come, and commits.
func consume(ctx context.Context, c *kgo.Client, out *bufio.Writer, seen map[string]bool, until int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for len(seen) < until {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("poll after %d of %d records: %w", len(seen), until, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			seen[fmt.Sprintf("%s %d %d", r.Topic, r.Partition, r.Offset)] = true
			fmt.Fprintf(out, "R %s %d %d %s %s ", r.Topic, r.Partition, r.Offset, hex(r.Key), hex(r.Value))
			for n, h := range r.Headers {
				if n > 0 {
					fmt.Fprint(out, ",")
				}
				fmt.Fprintf(out, "%s=%s", h.Key, hex(h.Value))
			}
			fmt.Fprintln(out)
		})
	}
	return c.CommitUncommittedOffsets(ctx)
}

func hex(b []byte) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("x%x", b)
}
