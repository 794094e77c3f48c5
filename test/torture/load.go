package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/test/torture/history"
)

const topic = "torture"

const flushLimit = 3 * time.Minute

// target is where clients find a cluster.
type target struct {
	bootstrap []string
	dial      proc.Dial // nil: as it is
	log       io.Writer // nil: what clients warn of is not kept
}

func (t target) options(more ...kgo.Opt) []kgo.Opt {
	o := []kgo.Opt{
		kgo.SeedBrokers(t.bootstrap...), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.RequestTimeoutOverhead(5 * time.Second),
		kgo.AlwaysRetryEOF(), // a kill while a connection's first request waits is no refusal
	}
	if t.dial != nil {
		o = append(o, kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // who is cut off does not even refuse
			defer cancel()
			return t.dial(ctx, network, address)
		}))
	}
	if t.log != nil {
		o = append(o, kgo.WithLogger(kgo.BasicLogger(t.log, kgo.LogLevelWarn, func() string { return time.Now().UTC().Format("15:04:05.000 ") })))
	}
	return append(o, more...)
}

// load is what producers send.
type load struct {
	partitions int
	rate       int // records per second and producer
	seed       uint64
}

// produce sends records of one producer to all partitions until ctx ends, then waits for what is under way.
func (l load) produce(ctx context.Context, t target, id uint32, h *history.History) error {
	rng := rand.New(rand.NewPCG(l.seed, uint64(id)))
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.ZstdCompression(), kgo.Lz4Compression(), kgo.SnappyCompression(), kgo.GzipCompression()}
	cl, err := kgo.NewClient(t.options(
		kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(codecs[int(id)%len(codecs)]), kgo.ProducerLinger(2*time.Millisecond), kgo.ProduceRequestTimeout(5*time.Second),
		kgo.RecordRetries(1_000_000), kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(5000),
	)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for range max(l.rate/100, 1) {
			p := rng.Int32N(int32(l.partitions))
			v := h.Send(p, id)
			r := &kgo.Record{Partition: p, Key: fmt.Appendf(nil, "%d", rng.IntN(1000)), Value: v.Encode(20+rng.IntN(800), rng)}
			cl.Produce(context.WithoutCancel(ctx), r, func(r *kgo.Record, err error) { h.Done(r.Partition, v, r.Offset, err) })
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	if err := cl.Flush(flush); err != nil {
		return fmt.Errorf("producer %d: flush: %w", id, err)
	}
	return nil
}
