package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/test/torture/history"
)

const (
	topic       = "failover"
	metadataAge = 100 * time.Millisecond
	backoff     = 50 * time.Millisecond
	tick        = 5 * time.Millisecond // between two sends
	flushLimit  = 2 * time.Minute
)

// stalls keeps the longest time between two acknowledgements of each partition since mark.
type stalls struct {
	mu struct {
		sync.Mutex
		last    []time.Time
		longest []time.Duration
		acks    []int
	}
}

func newStalls(partitions int) *stalls {
	s := &stalls{}
	s.mu.last, s.mu.longest, s.mu.acks = make([]time.Time, partitions), make([]time.Duration, partitions), make([]int, partitions)
	return s
}

func (s *stalls) ack(p int32, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.mu.last[p]; !last.IsZero() {
		s.mu.longest[p] = max(s.mu.longest[p], now.Sub(last))
	}
	s.mu.last[p] = now
	s.mu.acks[p]++
}

// mark begins a new window; what stalls already counts from its last acknowledgement.
func (s *stalls) mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.mu.longest)
}

// worst is the longest stall of any partition since mark, one that goes on included.
func (s *stalls) worst(now time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.mu.longest {
		longest = max(longest, s.mu.longest[p])
		if !s.mu.last[p].IsZero() {
			longest = max(longest, now.Sub(s.mu.last[p]))
		}
	}
	return longest
}

// counts are the acknowledgements of each partition from the beginning.
func (s *stalls) counts() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mu.acks)
}

// produce sends rate records per second, spread evenly, until ctx ends; then it waits for all acknowledgements.
func produce(ctx context.Context, c *proc.Cluster, partitions, rate int, h *history.History, s *stalls) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(c.Bootstrap()...), kgo.Dialer(c.Dial), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(metadataAge), kgo.MetadataMaxAge(metadataAge), kgo.RetryBackoffFn(func(int) time.Duration { return backoff }),
		kgo.RecordRetries(1_000_000), kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(rate*600),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	beat := time.NewTicker(tick)
	defer beat.Stop()
	began, sent := time.Now(), 0
	for ctx.Err() == nil {
		for due := int(time.Since(began).Seconds() * float64(rate)); sent < due; sent++ {
			p := int32(sent % partitions)
			v := h.Send(p, 1)
			cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Partition: p, Value: v.Encode(100, rng)}, func(r *kgo.Record, err error) {
				now := time.Now()
				h.Done(p, v, r.Offset, err)
				if err == nil {
					s.ack(p, now)
				}
			})
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	return cl.Flush(flush)
}

// readBack reads the whole topic and checks it.
func readBack(ctx context.Context, c *proc.Cluster, partitions int, h *history.History) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Bootstrap()...), kgo.Dialer(c.Dial), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	look := h.Look("the last reader")
	for acked := h.Acked(); look.Count() < acked; { // a failed send may add to them
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { look.Take(r.Partition, r.Offset, r.Key, r.Value) })
		if ctx.Err() != nil { // no word on what may be there
			h.Note(history.Unread, -1, -1, "%d records were read, %d acknowledged", look.Count(), acked)
			return ctx.Err()
		}
	}
	h.Check(look)
	return nil
}
