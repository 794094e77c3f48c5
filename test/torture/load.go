package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const topic = "torture"

// ack is one acknowledged record.
type ack struct {
	producer, seq uint32
	offset        int64
}

// ledger is what was acknowledged, per partition, in the order of the acknowledgements.
type ledger struct {
	mu struct {
		sync.Mutex
		acks   [][]ack
		failed []error
	}
}

func newLedger(partitions int) *ledger {
	l := &ledger{}
	l.mu.acks = make([][]ack, partitions)
	return l
}

func (l *ledger) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.mu.acks {
		n += len(a)
	}
	return n
}

func (l *ledger) done(r *kgo.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.failed = append(l.mu.failed, fmt.Errorf("produce to partition %d: %w", r.Partition, err))
		return
	}
	v, _ := parse(r.Value)
	l.mu.acks[r.Partition] = append(l.mu.acks[r.Partition], ack{v.producer, v.seq, r.Offset})
}

// value is the head of every record's value: producer, sequence in the partition, then noise, then a CRC-32C of it all.
type value struct{ producer, seq uint32 }

func build(v value, size int, rng *rand.Rand) []byte {
	b := make([]byte, 8, 12+size)
	binary.BigEndian.PutUint32(b, v.producer)
	binary.BigEndian.PutUint32(b[4:], v.seq)
	for range size {
		b = append(b, byte('a'+rng.IntN(8)))
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

// produce sends records of one producer to all partitions until ctx ends, then waits for what is under way.
func produce(ctx context.Context, addr string, id uint32, partitions int, ratePerSecond int, seed uint64, l *ledger) error {
	rng := rand.New(rand.NewPCG(seed, uint64(id)))
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.ZstdCompression(), kgo.Lz4Compression(), kgo.SnappyCompression(), kgo.GzipCompression()}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[int(id)%len(codecs)]), kgo.ProducerLinger(2*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RecordRetries(1_000_000), kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(5000),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	seqs := make([]uint32, partitions)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for range max(ratePerSecond/100, 1) {
			p := rng.IntN(partitions)
			r := &kgo.Record{Partition: int32(p), Key: fmt.Appendf(nil, "%d", rng.IntN(1000)), Value: build(value{id, seqs[p]}, 20+rng.IntN(800), rng)}
			seqs[p]++
			cl.Produce(context.WithoutCancel(ctx), r, l.done)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := cl.Flush(flush); err != nil {
		return fmt.Errorf("producer %d: flush: %w", id, err)
	}
	return nil
}
