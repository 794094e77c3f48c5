package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// seen is what a reader found in one partition: a checksum and a value head per offset, and each producer's next sequence.
type seen struct {
	sums []uint32
	vals []value
	next map[uint32]uint32
}

// reader reads every partition from offset 0 and notes each anomaly once.
type reader struct {
	parts     []seen
	anomalies []string
}

func newReader(partitions int) *reader {
	r := &reader{parts: make([]seen, partitions)}
	for i := range r.parts {
		r.parts[i].next = map[uint32]uint32{}
	}
	return r
}

func (r *reader) anomaly(format string, args ...any) {
	if len(r.anomalies) < 50 {
		r.anomalies = append(r.anomalies, fmt.Sprintf(format, args...))
	}
}

func (r *reader) take(rec *kgo.Record) {
	p := &r.parts[rec.Partition]
	if want := int64(len(p.sums)); rec.Offset != want {
		r.anomaly("partition %d: offset %d follows %d (skipped or repeated)", rec.Partition, rec.Offset, want-1)
		return
	}
	v, ok := parse(rec.Value)
	if !ok {
		r.anomaly("partition %d offset %d: the value is damaged", rec.Partition, rec.Offset)
	}
	if want := p.next[v.producer]; v.seq != want {
		r.anomaly("partition %d offset %d: producer %d has sequence %d, want %d (lost, duplicated or reordered)", rec.Partition, rec.Offset, v.producer, v.seq, want)
	}
	p.next[v.producer] = v.seq + 1
	p.vals = append(p.vals, v)
	p.sums = append(p.sums, crc32.ChecksumIEEE(append(rec.Key, rec.Value...)))
}

func readerClient(addr string) (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.FetchMaxWait(200*time.Millisecond),
	)
}

// follow consumes along until ctx ends.
func (r *reader) follow(ctx context.Context, addr string) error {
	cl, err := readerClient(addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(r.take)
	}
	return nil
}

// all reads up to the end offsets of now.
func (r *reader) all(ctx context.Context, addr string) error {
	cl, err := readerClient(addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	missing := func() (n int64) {
		ends.Each(func(o kadm.ListedOffset) { n += max(0, o.Offset-int64(len(r.parts[o.Partition].sums))) })
		return n
	}
	for missing() > 0 {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("%d records were not delivered: %w", missing(), ctx.Err())
		}
		fs.EachRecord(r.take)
	}
	return nil
}

// compare holds the final look against what was acknowledged and against what the consumer saw on its way.
func (r *reader) compare(l *ledger, along *reader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, acks := range l.mu.acks {
		final := &r.parts[p]
		if len(final.sums) != len(acks) {
			r.anomaly("partition %d holds %d records, %d were acknowledged", p, len(final.sums), len(acks))
		}
		for _, a := range acks {
			if a.offset >= int64(len(final.sums)) {
				r.anomaly("partition %d: acknowledged offset %d is lost", p, a.offset)
			} else if v := final.vals[a.offset]; v != (value{a.producer, a.seq}) {
				r.anomaly("partition %d offset %d: acknowledged for producer %d sequence %d, holds %d %d", p, a.offset, a.producer, a.seq, v.producer, v.seq)
			}
		}
		for off, sum := range along.parts[p].sums {
			if off < len(final.sums) && final.sums[off] != sum {
				r.anomaly("partition %d offset %d: the consumer saw other bytes than are there now", p, off)
			}
		}
	}
	for _, err := range l.mu.failed {
		r.anomaly("%v", err)
	}
	r.anomalies = append(r.anomalies, along.anomalies...)
}
