package ingest_test

import (
	"context"
	"testing"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/record"
)

// elect makes a broker the leader of the partition, in the given epoch, and waits until broker 2, whose env this is, knows.
func elect(e *env, tp base.TopicPartition, leader base.BrokerID, epoch base.LeaderEpoch) {
	e.t.Helper()
	e.unfence()
	e.decide(e.meta, tp, controller.State{ISR: []base.BrokerID{leader}, Leader: leader, LeaderEpoch: epoch})
	p, _ := e.meta.Image().Partition(tp)
	e.until("the broker knows its leader", func() bool {
		if leader != followerID {
			return ingest.FollowsUnder(e.Replica(p.Log)) == epoch
		}
		q, err := e.Partition(tp)
		if err != nil {
			return false
		}
		v, err := q.View()
		return err == nil && v.Epoch == epoch
	})
}

// follow writes n batches of one record as the leader of the epoch would send them.
func follow(e *env, log base.LogID, epoch base.LeaderEpoch, n base.Offset) {
	e.t.Helper()
	from := e.Replica(log).Status().LogEnd
	w := ingest.FollowerWrite{Log: log, Epoch: epoch, TruncateTo: base.NoOffset, HighWatermark: from + n}
	for i := range n {
		b := record.Batch(batch(e.t, 1, nowTs, record.BuildHeader{}))
		b.SetBaseOffset(from + i)
		b.SetLeaderEpoch(epoch)
		w.Batches = append(w.Batches, b)
	}
	e.check(e.ApplyFollower(e.t.Context(), []ingest.FollowerWrite{w})[0])
}

// TestTailOfALeaderThatWasAFollower: the tail holds as much of a log after its broker has led, followed and leads again.
func TestTailOfALeaderThatWasAFollower(t *testing.T) {
	e, tp := newFollower(t, 8, ingest.Options{TailBytes: 20 << 10})
	state, _ := e.meta.Image().Partition(tp)
	lead := func(n int) (held int) {
		for range n {
			e.mustPut(tp, batch(t, 1, nowTs, record.BuildHeader{}))
		}
		p := e.part(tp)
		v, err := p.View()
		e.check(err)
		for from := v.HotStart; from < v.HighWatermark; {
			bs, tier, err := p.ReadHotTier(from, v.HighWatermark, 1)
			e.check(err)
			if tier == ingest.TierTail {
				held++
			}
			from = bs[0].NextOffset()
		}
		return held
	}
	elect(e, tp, followerID, 9)
	first := lead(500)
	elect(e, tp, 1, 10)
	follow(e, state.Log, 10, 1)
	elect(e, tp, followerID, 11)
	if again := lead(500); first < 100 || again < first {
		t.Errorf("the tail held %d batches, and %d when it led again", first, again)
	}
}

// TestTailOfALateAppend: an append that is synced after its broker has become a follower, and has followed, leaves no gap between
// the tail and what is hot.
func TestTailOfALateAppend(t *testing.T) {
	e, tp := newFollower(t, 8, ingest.Options{MaxSealBytes: 100})
	state, _ := e.meta.Image().Partition(tp)
	elect(e, tp, followerID, 9)
	held, hold := make(chan struct{}), make(chan struct{})
	first := record.Batch(batch(t, 1, nowTs, record.BuildHeader{}))
	first.SetLeaderEpoch(9)
	e.AppendBatch(tp, first, func(base.Offset, error) { close(held); <-hold })
	<-held // what is behind it waits
	e.Append(context.Background(), 1, 30_000, []ingest.AppendRequest{{TP: tp, Records: batch(t, 1, nowTs, record.BuildHeader{}), ZstdAllowed: true}})
	elect(e, tp, 1, 10)
	follow(e, state.Log, 10, 4)
	close(hold)
	e.until("the late append is synced", func() bool { return ingest.PendingBytes(e.Ingest) == 0 })
	elect(e, tp, followerID, 11)
	p := e.part(tp)
	for _, end := range []base.Offset{1, 2, 3, 4} {
		ingest.TrimTo(p, end)
		v, err := p.View()
		e.check(err)
		for from := v.Served; from < v.HighWatermark; from++ {
			if _, err := p.ReadHot(from, v.HighWatermark, 1); err != nil {
				t.Errorf("served from %d, hot from %d: read at %d: %v", v.Served, v.HotStart, from, err)
			}
		}
	}
}
