package ingest_test

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/record"
)

// TestEpochWithoutRecords gives a log whose broker led an epoch without a record, and was restarted since, records of an older epoch:
// those that the leader of that epoch never had, kept by the one that leads now. They are of the epoch that they were written in:
// by another one the leader would make the follower cut them off, after it has acknowledged them (I1).
func TestEpochWithoutRecords(t *testing.T) {
	e, tp := newFollower(t, 6, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 6, rand.NewPCG(1, 6))
	write := func(epoch base.LeaderEpoch) {
		t.Helper()
		b := r.next()
		b.SetLeaderEpoch(epoch)
		r.batches = append(r.batches, b)
		e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{
			Log: r.log, Epoch: 6, TruncateTo: base.NoOffset, Batches: []record.Batch{slices.Clone(b)},
		}})[0])
	}
	write(4)
	e.close()
	e.open()
	ingest.LedWithoutRecords(e.Replica(r.log), 5)
	restart := func() {
		e.close()
		e.open()
	}
	restart()
	write(4)
	r.check()
	restart()
	r.check()
	write(6)
	r.check()
}

// TestStartOverLeavesNothing: where a damaged log ends is not known. Nothing behind the end that recovery came to may come back
// behind what is fetched anew.
func TestStartOverLeavesNothing(t *testing.T) {
	e, tp := newFollower(t, 7, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 7, rand.NewPCG(1, 7))
	for r.end() < 40 {
		r.write()
	}
	ingest.LoseEnd(e.Replica(r.log), 10)
	r.damage()
	over := ingest.FollowerWrite{Log: r.log, Epoch: r.epoch, TruncateTo: base.NoOffset, StartOver: &ingest.FollowerStart{}}
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{over})[0])
	r.batches = nil
	r.write()
	r.check()
}

// A broker led a log that ended below what is tiered, and follows another one before it has written that down: what it replicates
// from there must not lie behind the old rows after a crash.
func TestFollowerBehindTheTieredEnd(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{TickEvery: time.Hour})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 8))
	for r.end() < 20 {
		r.write()
	}
	ingest.SkipToTiered(e.Replica(r.log), 1000)
	b := r.next()
	b.SetBaseOffset(1000)
	b.SetLeaderEpoch(3)
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: []record.Batch{b}}})[0])
	e.crash()
	if s := e.Replica(r.log).Status(); s.HotStart != 1000 || s.LogEnd != b.NextOffset() {
		t.Errorf("status %+v, want [1000, %d)", s, b.NextOffset())
	}
}

// A log with a hole is damaged: its records would be missing for whoever reads it, and nobody would notice (I14).
func TestHoleIsDamage(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 9))
	for r.end() < 20 {
		r.write()
	}
	b := r.next()
	b.SetBaseOffset(r.end() + 5)
	w := e.store.NewWrite()
	w.Append(r.log, b)
	commit, err := e.store.Apply(w)
	e.check(err)
	e.check(commit.Wait())
	e.crash()
	more := ingest.FollowerWrite{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: []record.Batch{r.next()}}
	if err := e.ApplyFollower(t.Context(), []ingest.FollowerWrite{more})[0]; !isCode(err, kerr.KafkaStorageError) {
		t.Errorf("a log with a hole goes on: %v, status %+v", err, e.Replica(r.log).Status())
	}
}

// A partition leaves the broker and comes back before its old rows are deleted: their deletion must not take the new ones, which it
// has acknowledged.
func TestFollowerComesBackBeforeItsRowsAreGone(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{TickEvery: time.Hour})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 10))
	for r.end() < 20 {
		r.write()
	}
	e.replicas(tp, 4, 1)
	e.until("the log is gone", func() bool { return e.Replica(r.log) == nil })
	e.replicas(tp, 5, 1, followerID)
	e.until("the log is back", func() bool { return e.Replica(r.log) != nil && ingest.FollowsUnder(e.Replica(r.log)) == 5 })
	r.batches, r.epoch = nil, 5
	b := r.next()
	write := func() error {
		return e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{
			Log: r.log, Epoch: 5, TruncateTo: base.NoOffset, Batches: []record.Batch{slices.Clone(b)},
		}})[0]
	}
	early := write()
	ingest.DropGone(e.Ingest)
	if early != nil { // it was told to wait
		e.check(write())
	}
	r.batches = append(r.batches, b)
	r.check()
	e.close()
	e.open()
	r.check()
}

// replicas assigns a partition to brokers, of which the first leads, in a new epoch.
func (e *env) replicas(tp base.TopicPartition, epoch base.LeaderEpoch, ids ...base.BrokerID) {
	e.t.Helper()
	e.decide(e.meta, tp, controller.State{Replicas: ids, Leader: ids[0], LeaderEpoch: epoch})
}

// heldOnce is a clock that holds up the first who asks for the time once it is armed, and nobody else.
type heldOnce struct {
	clock.Real
	armed          atomic.Bool
	held, released chan struct{}
}

func (c *heldOnce) Now() time.Time {
	if c.armed.CompareAndSwap(true, false) {
		close(c.held)
		<-c.released
	}
	return c.Real.Now()
}

// A topic is created, written to and deleted while ingest is at an older image: it sees none that has the topic.
func TestTopicThatNoImageShowed(t *testing.T) {
	c := &heldOnce{held: make(chan struct{}), released: make(chan struct{})}
	e := &env{t: t, fs: vfs.NewCrashableMem(), opts: ingest.Options{Clock: c, TickEvery: time.Hour}}
	e.start()
	a := e.topic("a", nil)
	e.mustPut(a, batch(t, 1, nowTs, record.BuildHeader{}))
	c.armed.Store(true)
	e.replicas(a, e.part(a).Status().LeaderEpoch+2, 1)
	<-c.held
	x := e.topic("x", nil)
	e.mustPut(x, batch(t, 1, nowTs, record.BuildHeader{}))
	topic, _ := e.meta.Image().Topic("x")
	log := topic.Partitions[0].Log
	e.check(e.meta.DeleteTopic(t.Context(), topic.ID))
	close(c.released)
	e.until("the deleted topic's log is gone", func() bool { return e.Replica(log) == nil })
}

// A damaged log that starts over may do so for longer than its leader's epoch lasts. What that leaves must not take the place of what
// the image has wanted since: nobody would follow then.
func TestRenewalOfAnEpochThatIsOver(t *testing.T) {
	e, tp := newFollower(t, 6, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	p := e.Replica(state.Log)
	if ingest.Renewed(e.Ingest, p, 5) || !ingest.Renewed(e.Ingest, p, 6) {
		t.Errorf("a log that follows in epoch 6 is to be followed in epoch 5: %v, in epoch 6: %v",
			ingest.Renewed(e.Ingest, p, 5), ingest.Renewed(e.Ingest, p, 6))
	}
}

// Housekeeping finds a range to trim, and the log starts over before it does: what is below the new start must not be taken for hot
// (I5): it is neither there nor looked for in the bucket then.
func TestTrimOfALogThatStartsOver(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{TickEvery: time.Hour})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 11))
	for r.end() < 20 {
		r.write()
	}
	over := ingest.FollowerWrite{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, StartOver: &ingest.FollowerStart{At: 1000}}
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{over})[0])
	ingest.TrimTo(e.Replica(r.log), r.end())
	if s := e.Replica(r.log).Status(); s.HotStart != 1000 || s.LogEnd != 1000 {
		t.Errorf("status %+v, want [1000, 1000)", s)
	}
}

// A leader asks a log to start over whose end is behind the tiered range's (it has a hole, say): what fetches have acknowledged stays.
func TestStartOverKeepsWhatIsAcknowledged(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 3))
	for r.end() < 40 {
		r.write()
	}
	p := e.Replica(r.log)
	end := p.Status().LogEnd
	if _, err := ingest.StartOver(e.Ingest, p, 3, end, 0, ingest.FollowerStart{At: end - 1}); !isCode(err, kerr.OffsetOutOfRange) || p.Status().LogEnd != end {
		t.Errorf("%v, and the log ends at %d, want %d", err, p.Status().LogEnd, end)
	}
	if _, err := ingest.StartOver(e.Ingest, p, 3, end, 0, ingest.FollowerStart{At: end}); err != nil || p.Status().HotStart != end {
		t.Errorf("where all is tiered: %v, hot from %d", err, p.Status().HotStart)
	}
}

// A topic is not tiered any more, and retention has gone on from there: a replica starts over at a log start in a later epoch than
// those of what is tiered. They must not be taken for that of the record before it: the leader would call that diverging, for ever.
func TestStartOverBehindTheTieredEnd(t *testing.T) {
	e, tp := newFollower(t, 4, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	log, err := ingest.StartOver(e.Ingest, e.Replica(state.Log), 4, 0, 800, ingest.FollowerStart{At: 450, Epochs: []base.EpochStart{{Epoch: 3, Start: 0}}})
	e.check(err)
	at := replica.NewFollower(4, log).Position()
	if at.Offset != 800 {
		t.Errorf("goes on at %+v, want offset 800", at)
	}
	leaders := []base.EpochStart{{Epoch: 3, Start: 0}, {Epoch: 4, Start: 500}}
	if d, err := replica.Diverging(leaders, 4, 1000, at.Offset, at.LastEpoch); d != nil || err != nil {
		t.Errorf("the leader answers a fetch from %+v with %+v (%v)", at, d, err)
	}
}
