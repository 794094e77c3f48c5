package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/test/torture/history"
)

const groupName = "torture-group"

// members is a consumer group whose members come and go.
type members struct {
	t          target
	g          *history.Group
	seed       uint64
	rebalances atomic.Int64 // assignments that members were told
}

// run is one place in the group: a member joins, reads and commits for 5 to 20 seconds, leaves, and another takes its place, until ctx ends.
func (m *members) run(ctx context.Context, place int) error {
	rng := rand.New(rand.NewPCG(m.seed, 1000+uint64(place)))
	for n := 0; ctx.Err() == nil; n++ {
		life := 5*time.Second + time.Duration(rng.Int64N(int64(15*time.Second)))
		if err := m.member(ctx, fmt.Sprintf("%d.%d", place, n), life, rng); err != nil {
			return err
		}
	}
	return nil
}

func (m *members) member(ctx context.Context, name string, life time.Duration, rng *rand.Rand) error {
	balancer := kgo.CooperativeStickyBalancer()
	if m.seed%2 == 0 { // members of one group have one in common
		balancer = kgo.RangeBalancer()
	}
	each := func(do func(string, int32)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			for _, p := range topics[topic] {
				do(name, p)
			}
		}
	}
	cl, err := kgo.NewClient(m.t.options(
		kgo.ConsumerGroup(groupName), kgo.ConsumeTopics(topic), kgo.Balancers(balancer), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.RebalanceTimeout(10*time.Second), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			m.rebalances.Add(1)
			for _, p := range topics[topic] {
				m.g.Assigned(name, p) // before the client asks where to begin
			}
		}),
		kgo.OnPartitionsRevoked(each(m.g.Revoked)), kgo.OnPartitionsLost(each(m.g.Revoked)),
	)...)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	ctx, cancel := context.WithTimeout(ctx, life)
	defer cancel()
	for ctx.Err() == nil {
		fs := cl.PollRecords(ctx, 1+rng.IntN(2000))
		next := map[int32]kgo.EpochOffset{}
		fs.EachRecord(func(r *kgo.Record) {
			m.g.Polled(name, r.Partition, r.Offset)
			next[r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
		})
		if len(next) > 0 && rng.IntN(4) > 0 { // what is not committed is read again by the next owner
			m.commit(ctx, cl, next)
		}
		cl.AllowRebalance()
	}
	return nil
}

// commit sends one commit and waits for its answer.
func (m *members) commit(ctx context.Context, cl *kgo.Client, next map[int32]kgo.EpochOffset) {
	const patience = 5 * time.Second
	for p, o := range next {
		m.g.Attempt(p, o.Offset)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: next},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err != nil || resp == nil {
				return // it may be applied or not
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if kerr.ErrorForCode(p.ErrorCode) == nil {
						m.g.Confirmed(p.Partition, next[p.Partition].Offset)
					}
				}
			}
		})
}

// watch asks the coordinator for the group's offsets twice a second until ctx ends.
func (m *members) watch(ctx context.Context, adm *kadm.Client) {
	for ctx.Err() == nil {
		m.ask(ctx, adm, false)
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// ask compares one answer of the coordinator with what was confirmed before the question.
func (m *members) ask(ctx context.Context, adm *kadm.Client, settled bool) {
	floors := m.g.Floors()
	committed, err := adm.FetchOffsets(ctx, groupName)
	if err != nil {
		return
	}
	for p, floor := range floors {
		o, found := committed.Lookup(topic, int32(p))
		switch {
		case !found:
			m.g.Observed(int32(p), -1, floor, settled)
		case o.Err == nil:
			m.g.Observed(int32(p), o.At, floor, settled)
		}
	}
}
