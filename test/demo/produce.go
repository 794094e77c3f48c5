package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// checkpointEvery records the chain is written down, so that a difference is found in a range and not in a topic.
const checkpointEvery = 1 << 16

// maxBatchBytes is the largest batch, and the topic's max.message.bytes: the Go distribution has a line of 1.4 MB.
const maxBatchBytes = 2 << 20

// chain is a hash over all records of a partition in their order: each link hashes the one before, the key and the value.
type chain struct {
	hash   hash.Hash
	link   [sha256.Size]byte
	count  int64
	points [][sha256.Size]byte // the link after each checkpointEvery records
}

func newChain() *chain { return &chain{hash: sha256.New()} }

func (c *chain) add(key, value []byte) {
	var n [8]byte
	binary.BigEndian.PutUint32(n[0:], uint32(len(key)))
	binary.BigEndian.PutUint32(n[4:], uint32(len(value)))
	c.hash.Reset()
	c.hash.Write(c.link[:])
	c.hash.Write(n[:])
	c.hash.Write(key)
	c.hash.Write(value)
	c.hash.Sum(c.link[:0])
	if c.count++; c.count%checkpointEvery == 0 {
		c.points = append(c.points, c.link)
	}
}

// moment is the first record of a partition with a timestamp.
type moment struct {
	timestampMs int64
	offset      int64
}

// produced is what must come back.
type produced struct {
	chains  []*chain
	moments [][]moment // per partition, in order
	bytes   int64      // of values
	keyed   int64      // of keys and values
	took    time.Duration
}

func (p *produced) records() (n int64) {
	for _, c := range p.chains {
		n += c.count
	}
	return n
}

// produceAll sends every line. A file's lines go to one partition, so their order is kept.
func produceAll(ctx context.Context, seed, topic string, partitions int32, in *input, wantBytes int64) (*produced, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(seed), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // so that 200 MB are 200 MB
		kgo.ProducerBatchMaxBytes(maxBatchBytes), kgo.ProducerLinger(10*time.Millisecond), kgo.MaxBufferedRecords(200_000), kgo.MaxBufferedBytes(64<<20),
	)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	p := &produced{moments: make([][]moment, partitions)}
	for range partitions {
		p.chains = append(p.chains, newChain())
	}
	var failure atomic.Pointer[error]
	start := time.Now()
	err = in.lines(wantBytes, func(key, line []byte) error {
		if e := failure.Load(); e != nil {
			return *e
		}
		partition, now := partitionOf(key, partitions), time.Now().UnixMilli()
		now = p.note(partition, now)
		p.chains[partition].add(key, line)
		p.keyed += int64(len(key) + len(line))
		cl.Produce(ctx, &kgo.Record{Key: key, Value: line, Partition: partition, Timestamp: time.UnixMilli(now)}, func(_ *kgo.Record, err error) {
			if err != nil {
				failure.CompareAndSwap(nil, &err)
			}
		})
		return ctx.Err()
	})
	if err == nil {
		err = cl.Flush(ctx)
	}
	if e := failure.Load(); e != nil {
		err = *e
	}
	if err != nil {
		return nil, fmt.Errorf("produce: %w", err)
	}
	p.bytes, p.took = in.bytes, time.Since(start)
	return p, nil
}

// note keeps the first offset of every timestamp, and keeps timestamps from going back where the machine's clock does.
func (p *produced) note(partition int32, nowMs int64) int64 {
	all := p.moments[partition]
	if len(all) > 0 && all[len(all)-1].timestampMs >= nowMs {
		return all[len(all)-1].timestampMs
	}
	p.moments[partition] = append(all, moment{nowMs, p.chains[partition].count})
	return nowMs
}

func partitionOf(key []byte, partitions int32) int32 {
	h := fnv.New32a()
	_, _ = h.Write(key) // never fails
	return int32(h.Sum32() % uint32(partitions))
}
