package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

const (
	freshTopic    = "fresh" // its own, placed as the measured one: what fresh producers send is not part of the history
	freshEvery    = 100 * time.Millisecond
	freshPatience = time.Second // of one attempt
)

// fresh tries partitions with a new producer again and again, each attempt beside the ones before.
type fresh struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	mu   struct {
		sync.Mutex
		first map[int32]time.Duration // by partition, until the first attempt that was acknowledged, from the beginning
	}
}

// tryFresh begins now and goes on until wait is called.
func tryFresh(ctx context.Context, c *proc.Cluster, seeds []string, partitions []int32) *fresh {
	f := &fresh{}
	f.mu.first = map[int32]time.Duration{}
	ctx, f.stop = context.WithCancel(ctx)
	began := time.Now()
	f.wg.Go(func() {
		beat := time.NewTicker(freshEvery)
		defer beat.Stop()
		for ctx.Err() == nil {
			for _, p := range partitions {
				if !f.done(p) {
					f.wg.Go(func() { f.attempt(ctx, c, seeds, p, began) })
				}
			}
			select {
			case <-beat.C:
			case <-ctx.Done():
			}
		}
	})
	return f
}

func (f *fresh) done(p int32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, done := f.mu.first[p]
	return done
}

func (f *fresh) attempt(ctx context.Context, c *proc.Cluster, seeds []string, p int32, began time.Time) {
	ctx, cancel := context.WithTimeout(ctx, freshPatience)
	defer cancel()
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(seeds...), kgo.Dialer(c.Dial), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite(), kgo.ProducerLinger(0),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordRetries(0), kgo.RecordDeliveryTimeout(freshPatience), kgo.ProduceRequestTimeout(freshPatience),
		kgo.MetadataMinAge(metadataAge), kgo.RetryBackoffFn(func(int) time.Duration { return backoff }),
	)
	if err != nil {
		return
	}
	answer := make(chan error, 1)
	cl.Produce(ctx, &kgo.Record{Topic: freshTopic, Partition: p, Value: []byte("x")}, func(_ *kgo.Record, err error) { answer <- err })
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = ctx.Err()
	}
	took := time.Since(began)
	go cl.Close() // which may wait for a broker that hangs; it ends with the process at the latest
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if before, done := f.mu.first[p]; !done || took < before {
		f.mu.first[p] = took
	}
}

// end stops the attempts: how long until every partition was served, false where one never was.
func (f *fresh) end(partitions []int32) (longest time.Duration, all bool) {
	f.stop()
	f.wg.Wait()
	for _, p := range partitions {
		took, ok := f.mu.first[p]
		if !ok {
			return 0, false
		}
		longest = max(longest, took)
	}
	return longest, true
}
