package ingest_test

import (
	"math/rand/v2"
	"testing"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/record"
)

// rooted commits a manifest root, and tells the broker.
func (e *env) rooted(tp base.TopicPartition, start, end base.Offset) {
	e.t.Helper()
	state, ok := e.meta.Image().Partition(tp)
	if !ok {
		e.t.Fatal("no partition")
	}
	root := metadata.Root{Log: state.Log, Epoch: state.LeaderEpoch, Seq: 1, Start: start, TieredEnd: end, Object: "x"}
	e.check(e.meta.SwapRoots(e.t.Context(), []*metadata.Root{&root})[0])
	e.OnRoot(root)
}

// electSelf makes this broker the partition's leader, with all replicas in the ISR.
func (e *env) electSelf(tp base.TopicPartition) {
	e.t.Helper()
	e.unfence()
	p, _ := e.meta.Image().Partition(tp)
	e.decide(e.meta, tp, controller.State{Leader: e.id, LeaderEpoch: p.LeaderEpoch + 1})
	e.until("this broker leads", func() bool {
		r := e.Replica(p.Log)
		_, err := r.View()
		return err == nil && r.Status().LeaderEpoch > p.LeaderEpoch
	})
}

// A leader moves its log start, swaps the root, and dies before its follower has heard of the new log start: what is below is not in
// the bucket any more, and the follower, once it leads, must not offer it.
func TestNewLeaderStartsAtItsManifest(t *testing.T) {
	e, tp := newFollower(t, 3, byHand)
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 10))
	var bs []record.Batch
	for r.end() < 100 {
		b := r.next()
		r.batches = append(r.batches, b)
		bs = append(bs, b)
	}
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{
		Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: bs, HighWatermark: 80, LogStart: 20,
	}})[0])
	e.rooted(tp, 40, 60)
	if s := e.Replica(r.log).Status(); s.LogStart != 20 {
		t.Fatalf("a follower's log starts at %d before its leader has said so", s.LogStart)
	}
	e.electSelf(tp)
	if s := e.Replica(r.log).Status(); s.LogStart != 40 || s.HighWatermark != 80 {
		t.Errorf("the new leader's log starts at %d, its manifest at 40; high watermark %d, want 80", s.LogStart, s.HighWatermark)
	}
}

// A leader hears of the root after it has begun to lead, and takes it over as far as its high watermark; for good.
func TestLeaderHearsLateWhereItsManifestStarts(t *testing.T) {
	l := newLed(t)
	l.fetched(0, 0)
	r := l.Append(t.Context(), 1, 5000, []ingest.AppendRequest{{TP: l.tp, Records: batch(t, 100, nowTs, record.BuildHeader{})}})
	<-r.Done()
	l.check(r.Results()[0].Err)
	feed := ingest.NewFeed()
	feed.Join(l.part(l.tp))
	logStart := func() base.Offset { return l.part(l.tp).Status().LogStart }
	l.rooted(l.tp, 40, 60)
	if s := l.part(l.tp).Status(); s.LogStart != 0 || s.HighWatermark != 0 {
		t.Fatalf("log start %d, high watermark %d", s.LogStart, s.HighWatermark)
	}
	l.fetched(100, 0)
	if got := logStart(); got != 40 {
		t.Errorf("the high watermark is past where the manifest starts: log start %d, want 40", got)
	}
	feed.Take()
	feed.TakeQuiet()
	p := l.part(l.tp)
	l.OnRoot(metadata.Root{Log: p.Log(), Start: 50, TieredEnd: 60})
	if got := logStart(); got != 50 || len(feed.TakeQuiet()) != 1 {
		t.Errorf("log start %d, want 50, or followers are not told", got)
	}
	l.OnRoot(metadata.Root{Log: p.Log(), Start: 45, TieredEnd: 60})
	if got := logStart(); got != 50 {
		t.Errorf("an older root moved the log start to %d", got)
	}
	l.crash()
	if s := l.Replica(p.Log()).Status(); s.LogStart < 40 {
		t.Errorf("log start %d after a crash, the root's is 40", s.LogStart)
	}
}
