package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stallTimeout is how long a read may bring nothing.
const stallTimeout = 30 * time.Second

// readBack reads every partition from its first offset and compares it with what was produced: every offset once and in
// order, every key and value, by the chain.
func readBack(ctx context.Context, seed, topic string, want *produced) (time.Duration, error) {
	start := map[int32]kgo.Offset{}
	got := make([]*chain, len(want.chains))
	for p := range want.chains {
		start[int32(p)], got[p] = kgo.NewOffset().AtStart(), newChain()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(seed), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}),
		kgo.FetchMaxPartitionBytes(4<<20), kgo.FetchMaxBytes(32<<20))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	began := time.Now()
	for left := want.records(); left > 0; {
		poll, cancel := context.WithTimeoutCause(ctx, stallTimeout, fmt.Errorf("nothing came for %s, %d records missing", stallTimeout, left))
		fetches := cl.PollFetches(poll)
		stalled := context.Cause(poll)
		cancel()
		if fetches.NumRecords() == 0 && stalled != nil {
			return 0, stalled
		}
		if err := fetches.Err(); err != nil {
			return 0, fmt.Errorf("fetch: %w", err)
		}
		for it := fetches.RecordIter(); !it.Done(); left-- {
			r := it.Next()
			if err := compare(got[r.Partition], want.chains[r.Partition], r); err != nil {
				return 0, err
			}
		}
	}
	took := time.Since(began)
	for p, c := range got {
		if c.count != want.chains[p].count || c.link != want.chains[p].link {
			return 0, fmt.Errorf("partition %d: %d records with chain %x, produced were %d with chain %x", p, c.count, c.link[:8], want.chains[p].count, want.chains[p].link[:8])
		}
	}
	return took, nil
}

func compare(got, want *chain, r *kgo.Record) error {
	if r.Offset != got.count {
		return fmt.Errorf("partition %d: offset %d where %d was due", r.Partition, r.Offset, got.count)
	}
	got.add(r.Key, r.Value)
	if n := len(got.points); got.count%checkpointEvery == 0 && (n > len(want.points) || got.points[n-1] != want.points[n-1]) {
		return fmt.Errorf("partition %d: records differ between offsets %d and %d", r.Partition, got.count-checkpointEvery, got.count)
	}
	return nil
}

// lookups asks for the offset of timestamps, in the cold part of every partition and in the hot one, and answers how many of
// each were right.
func lookups(ctx context.Context, adm *kadm.Client, topic string, want *produced, tiers []partitionTiers) (cold, hot int, err error) {
	for _, t := range tiers {
		moments := want.moments[t.Partition]
		var samples []moment
		for i := 1; i <= 4; i++ { // spread over the log; the last is the newest
			samples = append(samples, moments[(len(moments)-1)*i/4])
		}
		for _, m := range samples {
			listed, err := adm.ListOffsetsAfterMilli(ctx, m.timestampMs, topic)
			if err != nil {
				return cold, hot, fmt.Errorf("look up %d: %w", m.timestampMs, err)
			}
			l, _ := listed.Lookup(topic, t.Partition)
			if l.Err != nil {
				return cold, hot, fmt.Errorf("look up %d in partition %d: %w", m.timestampMs, t.Partition, l.Err)
			}
			if l.Offset != m.offset || l.Timestamp != m.timestampMs {
				return cold, hot, fmt.Errorf("partition %d: timestamp %d is offset %d, the broker says offset %d with timestamp %d",
					t.Partition, m.timestampMs, m.offset, l.Offset, l.Timestamp)
			}
			if m.offset < t.HotStartOffset {
				cold++
			} else {
				hot++
			}
		}
	}
	return cold, hot, nil
}
