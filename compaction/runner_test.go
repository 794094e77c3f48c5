package compaction_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

const grace = time.Minute // as tiertest.Env configures it

// forever is the configuration of a topic that keeps everything.
var forever = map[string]string{"retention.ms": "-1"}

// owner is the hot store of the Env as compaction sees it.
type owner struct {
	e     *tiertest.Env
	moves int
}

func (o *owner) log(tp base.TopicPartition) *tiertest.Log {
	p, ok := o.e.Store.Image().Partition(tp)
	if !ok {
		return nil
	}
	return o.e.Source.Log(p)
}

func (o *owner) Standing(tp base.TopicPartition) (compaction.Standing, error) {
	l := o.log(tp)
	if l == nil {
		return compaction.Standing{}, fmt.Errorf("%s is not here", tp)
	}
	return compaction.Standing{LogStart: l.LogStart, HighWatermark: l.End()}, nil
}

func (o *owner) AdvanceLogStart(_ context.Context, log base.LogID, to base.Offset) error {
	p, _, _ := o.e.Store.Image().Log(log)
	l := o.e.Source.Log(p)
	if to < l.LogStart || to > l.End() {
		o.e.T.Errorf("log start of %s moves from %d to %d of %d", p.TP, l.LogStart, to, l.End())
	}
	l.LogStart = to
	o.moves++
	return nil
}

func runner(e *tiertest.Env) *compaction.Runner {
	e.T.Helper()
	r, err := compaction.New(compaction.Options{Bucket: e.Bucket, Tiering: e.Tier, Meta: e.Store, Owner: &owner{e: e}, BrokerID: 1, BrokerEpoch: e.Epoch, Clock: e.Clock})
	e.Check(err)
	return r
}

// fill seals ranges of some logs: small ones that share packs, and longer ones.
func fill(e *tiertest.Env, logs []*tiertest.Log, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i, l := range logs {
		n := 3
		if i == len(logs)-1 {
			n = 25
		}
		e.Source.Fill(l, rnd, n, 120)
	}
}

func clean(e *tiertest.Env) tiering.Report {
	e.T.Helper()
	rep := e.Fsck(grace)
	if !rep.Clean() {
		e.T.Fatalf("fsck: %+v", rep)
	}
	return rep
}

// settle runs all jobs until every grace period is over.
func settle(e *tiertest.Env, r *compaction.Runner) {
	e.T.Helper()
	for range 3 {
		e.Check(r.RunOnce(context.Background()))
		e.Clock.Advance(2 * grace)
	}
	e.Check(r.RunOnce(context.Background()))
}

func TestRetentionFreesTheBucket(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := e.Topic("t", 3, map[string]string{"retention.ms": "-1", "retention.bytes": "3000"})
	r := runner(e)
	for i := range uint64(10) {
		fill(e, logs, i)
		e.Drain()
		e.Clock.Advance(20 * time.Second)
		e.Check(r.RunOnce(context.Background()))
		clean(e)
		e.CheckReads(1500, logs...)
	}
	settle(e, r)
	rep := clean(e)
	if rep.InGrace != 0 {
		t.Errorf("%d unnamed objects are left", rep.InGrace)
	}
	e.CheckRoots()
	for _, l := range logs {
		b, _ := e.Tier.Reader().Bounds(l.State.Log)
		if b.Start == 0 || b.Start != l.LogStart || b.Objects > 3 {
			t.Errorf("%s: %+v, log start %d", l.State.TP, b, l.LogStart)
		}
	}
}

// TestPackOutlivesOneOfItsLogs drops all of one log: the pack stays for the other.
func TestPackOutlivesOneOfItsLogs(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := e.Topic("t", 2, forever)
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, l := range logs {
		e.Source.Fill(l, rnd, 2, 50)
	}
	e.Drain()
	r := runner(e)
	logs[0].LogStart = logs[0].End()
	settle(e, r)
	clean(e)
	if n := count(e, tiering.KindPack); n != 1 {
		t.Fatalf("%d packs", n)
	}
	e.CheckReads(500, logs...)
	logs[1].LogStart = logs[1].End()
	settle(e, r)
	clean(e)
	if n := count(e, tiering.KindPack); n != 0 {
		t.Fatalf("%d packs are left of logs that were emptied", n)
	}
	e.Source.Fill(logs[0], rnd, 2, 50)
	e.Drain()
	e.CheckReads(500, logs...)
}

func count(e *tiertest.Env, kind tiering.Kind) (n int) {
	for _, key := range e.Mem.Keys() {
		if tiering.ParseName(key).Kind == kind {
			n++
		}
	}
	return n
}

// TestTopicDeletionLeavesNothing deletes topics whose packs and manifest objects are shared with one that stays.
func TestTopicDeletionLeavesNothing(t *testing.T) {
	e := tiertest.New(t, func(o *tiering.Options) { o.SpillEntries = 2 })
	gone, stay := e.Topic("gone", 3, forever), e.Topic("stay", 2, forever)
	for i := range uint64(6) {
		fill(e, append(append([]*tiertest.Log{}, gone...), stay...), i)
		e.Drain()
	}
	rnd := rand.New(rand.NewPCG(5, 5))
	e.Source.Fill(gone[0], rnd, 3, 50) // after this the newest manifest of the others is in an older, shared object
	e.Drain()
	r := runner(e)
	e.Check(r.RunOnce(context.Background()))
	deleteTopic(e, "gone")
	e.Check(r.RunOnce(context.Background()))
	clean(e)
	left, err := e.Store.DeletedLogs(context.Background())
	e.Check(err)
	if len(left) != 0 {
		t.Fatalf("deleted logs are left: %+v", left)
	}
	for _, l := range gone {
		for _, key := range e.Mem.Keys() {
			if strings.HasPrefix(key, tiering.SegmentsOf(l.State.Log)) {
				t.Errorf("%s is left", key)
			}
		}
	}
	found, err := tiering.Rebuild(context.Background(), e.Mem)
	e.Check(err)
	if len(found) != len(stay) {
		t.Errorf("the bucket tells of %d logs, want %d", len(found), len(stay))
	}
	e.CheckReads(2000, stay...)
	e.CheckRoots()
	deleteTopic(e, "stay")
	settle(e, r)
	if keys := e.Mem.Keys(); len(keys) != 0 {
		t.Fatalf("objects are left after every topic was deleted: %v", keys)
	}
}

func deleteTopic(e *tiertest.Env, name string) {
	e.T.Helper()
	topic, ok := e.Store.Image().Topic(name)
	if !ok {
		e.T.Fatalf("topic %s does not exist", name)
	}
	e.Check(e.Store.DeleteTopic(context.Background(), topic.ID))
}

// TestCrashLeavesNoOrphans ends the process at every operation of a round and of all jobs; after the restart one scrub
// past the grace period leaves the bucket clean (I7), and nothing is lost.
func TestCrashLeavesNoOrphans(t *testing.T) {
	for _, mode := range tiertest.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			step := 1
			if invariants.Enabled { // the race detector makes it ten times as long: every operation is the plain run's
				step = 5
			}
			for n := 1; crash(t, n, mode); n += step {
			}
		})
	}
}

func crash(t *testing.T, n int, mode tiertest.Mode) (hit bool) {
	t.Run(tiertest.Name(n), func(t *testing.T) {
		e := tiertest.New(t, func(o *tiering.Options) { o.SpillEntries = 3 })
		logs := e.Topic("t", 2, map[string]string{"retention.ms": "-1", "retention.bytes": "6000"})
		dead := e.Topic("dead", 2, forever)
		for i := range uint64(4) {
			fill(e, logs, i)
			fill(e, dead, i)
			e.Drain()
		}
		deleteTopic(e, "dead")
		fill(e, logs, 99)
		r := runner(e)
		e.Faults.Arm(n, mode)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range 3 {
			_, _ = e.Tier.RunOnce(ctx)
			if e.Faults.Crashed() {
				cancel()
			}
			_ = r.RunOnce(ctx)
			e.Clock.Advance(2 * grace)
		}
		crashed := e.Faults.Crashed()
		hit = e.Faults.Disarm()
		if crashed {
			e.Restart()
			r = runner(e)
		}
		if rep := e.Fsck(grace); rep.Missing != 0 || rep.Corrupt != 0 {
			t.Fatalf("before the scrub: %+v", rep)
		}
		e.Drain()
		e.Check(r.RunOnce(context.Background()))
		clean(e)
		e.CheckReads(2000, logs...)
		e.CheckRoots()
		settle(e, r)
		if rep := clean(e); rep.InGrace != 0 || rep.Logs != 2 {
			t.Fatalf("after everything settled: %+v", rep)
		}
		if left, err := e.Store.DeletedLogs(context.Background()); err != nil || len(left) != 0 {
			t.Fatalf("deleted logs: %v %v", left, err)
		}
		if in, err := e.Store.Intents(context.Background()); err != nil || len(in) != 0 {
			t.Fatalf("intents: %v %v", in, err)
		}
	})
	return hit
}

// TestSweepSparesWorkInProgress sweeps long after an upload began: its intent keeps the object.
func TestSweepSparesWorkInProgress(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := e.Topic("t", 1, forever)
	fill(e, logs, 1)
	e.Drain()
	data, err := e.Mem.Get(context.Background(), e.Mem.Keys()[0], 0, -1)
	e.Check(err)
	name := tiering.Name{Kind: tiering.KindPack, Broker: 2, ID: strings.Repeat("a", 32)}.String()
	epoch, err := e.Store.RegisterBroker(context.Background(), metadata.Broker{ID: 2, Host: "127.0.0.1", Port: 9093}) // fenced, and alive
	e.Check(err)
	e.Check(e.Store.PutIntent(context.Background(), metadata.Intent{ID: "other", Broker: 2, Epoch: epoch, Objects: []string{name}}))
	put(e, name, data)
	r := runner(e)
	settle(e, r)
	if n := count(e, tiering.KindPack); n != 1 {
		t.Fatalf("%d packs: an object under an intent was swept", n)
	}
	e.Check(e.Store.DeleteIntents(context.Background(), "other"))
	settle(e, r)
	if n := count(e, tiering.KindPack); n != 0 {
		t.Fatalf("%d packs: an orphan was not swept", n)
	}
}

// TestSweepRefusesForeignBucket points a new cluster at the bucket of another one.
func TestSweepRefusesForeignBucket(t *testing.T) {
	a := tiertest.New(t, nil)
	logs := a.Topic("t", 2, forever)
	fill(a, logs, 1)
	a.Drain()
	b := tiertest.New(t, nil)
	for _, key := range a.Mem.Keys() {
		data, err := a.Mem.Get(context.Background(), key, 0, -1)
		a.Check(err)
		put(b, key, data)
	}
	before := len(b.Mem.Keys())
	b.Clock.Advance(10 * grace)
	if err := runner(b).RunOnce(context.Background()); err == nil || !strings.Contains(err.Error(), "of cluster") {
		t.Fatalf("sweep of a foreign bucket: %v", err)
	}
	if n := len(b.Mem.Keys()); n != before {
		t.Fatalf("%d of %d objects of another cluster were deleted", before-n, before)
	}
}

// TestSweepRefusesWhatItCannotRead damages a current manifest: nothing may be concluded from what is left.
func TestSweepRefusesWhatItCannotRead(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := e.Topic("t", 2, forever)
	fill(e, logs, 1)
	e.Drain()
	root, _, err := e.Store.Root(context.Background(), logs[0].State.Log)
	e.Check(err)
	e.Mem.Corrupt(root.Object, root.Pos+root.Len/2)
	e.Restart()
	before := len(e.Mem.Keys())
	e.Clock.Advance(10 * grace)
	if err := runner(e).RunOnce(context.Background()); !base.IsCorruption(err) {
		t.Fatalf("sweep beside a damaged manifest: %v", err)
	}
	if n := len(e.Mem.Keys()); n != before {
		t.Fatalf("%d objects were deleted", before-n)
	}
}
