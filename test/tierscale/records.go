package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic      = "tierscale"
	valueBytes = 1000
	firstTs    = int64(1_750_000_000_000)
)

// chain is a running hash over a partition's records in the order of their offsets.
type chain struct {
	sum     [32]byte
	records int64
}

func (c *chain) add(r *kgo.Record) {
	h := sha256.New()
	h.Write(c.sum[:])
	var meta [16]byte
	binary.BigEndian.PutUint64(meta[:], uint64(r.Offset))
	binary.BigEndian.PutUint64(meta[8:], uint64(r.Timestamp.UnixMilli()))
	h.Write(meta[:])
	h.Write(r.Key)
	h.Write(r.Value)
	h.Sum(c.sum[:0])
	c.records++
}

// timestampOf is what a partition's n-th record carries: growing, with small steps back.
func timestampOf(n int64) int64 { return firstTs + n - (n%7)*3 }

// writer produces until a number of bytes is acknowledged. One goroutine a partition keeps its order and chain.
type writer struct {
	cl         *kgo.Client
	partitions int
	rate       float64 // bytes per second, all partitions together
	chains     []chain
	bytes      int64
}

func newWriter(addr string, partitions int, rate float64) (*writer, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(512<<10), kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(20_000),
	)
	return &writer{cl: cl, partitions: partitions, rate: rate, chains: make([]chain, partitions)}, err
}

// write adds about n bytes.
func (w *writer) write(ctx context.Context, n int64) error {
	var wg sync.WaitGroup
	errs := make(chan error, w.partitions)
	perPartition := n / int64(w.partitions) / valueBytes
	for p := range w.partitions {
		wg.Go(func() { errs <- w.writePartition(ctx, int32(p), perPartition) })
	}
	wg.Wait()
	w.bytes += perPartition * int64(w.partitions) * valueBytes
	for range w.partitions {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) writePartition(ctx context.Context, p int32, records int64) error {
	c := &w.chains[p]
	rng := rand.NewChaCha8([32]byte{byte(p), byte(c.records), byte(c.records >> 8), byte(c.records >> 16)})
	var failed error
	var mu sync.Mutex
	base := c.records
	begin := time.Now()
	for i := range records {
		if due := time.Duration(float64(i*valueBytes*int64(w.partitions)) / w.rate * float64(time.Second)); i%100 == 0 {
			time.Sleep(due - time.Since(begin)) // at once where it is late
		}
		value := make([]byte, valueBytes)
		_, _ = rng.Read(value) // never fails
		r := &kgo.Record{Partition: p, Key: fmt.Appendf(nil, "k%d", i%1000), Value: value, Timestamp: time.UnixMilli(timestampOf(base + i))}
		w.cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = err
			case r.Offset != c.records:
				failed = fmt.Errorf("partition %d: record acknowledged at %d, want %d", p, r.Offset, c.records)
			default:
				c.add(r)
			}
		})
	}
	if err := w.cl.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// readBack consumes everything from the first offset and answers the chains.
func readBack(ctx context.Context, addr string, want []chain) ([]chain, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(32<<20), kgo.FetchMaxPartitionBytes(8<<20))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	got := make([]chain, len(want))
	missing := int64(0)
	for i := range want {
		missing += want[i].records
	}
	for missing > 0 {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return got, fmt.Errorf("%d records were not delivered: %w", missing, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if err == nil && r.Offset != got[r.Partition].records {
				err = fmt.Errorf("partition %d: offset %d follows %d", r.Partition, r.Offset, got[r.Partition].records-1)
			}
			got[r.Partition].add(r)
			missing--
		})
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

// lookUp asks which offset each timestamp finds in every partition.
func lookUp(ctx context.Context, adm *kadm.Client, timestamps []int64) (map[string]int64, error) {
	found := map[string]int64{}
	for _, ts := range timestamps {
		offs, err := adm.ListOffsetsAfterMilli(ctx, ts, topic)
		if err == nil {
			err = offs.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("look up %d: %w", ts, err)
		}
		offs.Each(func(o kadm.ListedOffset) { found[fmt.Sprintf("%d@%d", ts, o.Partition)] = o.Offset })
	}
	return found, nil
}

// firstAtOrAfter is the right answer: the first record of a partition with a timestamp of ts or more.
func firstAtOrAfter(ts, records int64) int64 {
	for n := max(0, ts-firstTs-20); n < records; n++ {
		if timestampOf(n) >= ts {
			return n
		}
	}
	return -1
}
