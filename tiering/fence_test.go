package tiering_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// TestTwoLeaders lets a leader of an older epoch and the current one archive the same ranges at the same time (I4).
func TestTwoLeaders(t *testing.T) {
	for seed := range 20 {
		e := tiertest.New(t, nil)
		logs := workload(e)
		stale := &deposed{Source: e.Source, Meta: e.Store, ranges: e.Source.Sealed(1 << 62)}
		e.Tune = func(o *tiering.Options) { o.Source, o.Meta = stale, stale }
		oldTier := e.NewTiering()
		e.Tune = nil
		e.Restart() // registers again: the partitions have the next leader epoch
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() { <-start; _, _ = oldTier.RunOnce(context.Background()) })
		wg.Go(func() { <-start; _, _ = e.Tier.RunOnce(context.Background()) })
		close(start)
		wg.Wait()
		e.Drain()
		if stale.swaps.Load() == 0 && !stale.late.Load() {
			t.Fatalf("round %d: the old leader neither tried to commit nor found everything done", seed)
		}
		if n := stale.committed.Load(); n != 0 {
			t.Fatalf("round %d: a leader of an old epoch committed %d manifests", seed, n)
		}
		e.CheckReads(4000, logs...)
		e.CheckRoots()
		if rep := e.Fsck(time.Hour); !rep.Clean() {
			t.Fatalf("round %d: fsck %+v", seed, rep)
		}
	}
}

// deposed is the hot store and the metadata store of a leader that does not know that it is none any more. It counts the
// roots that it tried to swap and those that it did.
type deposed struct {
	*tiertest.Source
	tiering.Meta
	ranges           []tiering.SealedRange
	swaps, committed atomic.Int64
	late             atomic.Bool // told that its ranges are tiered already
}

func (d *deposed) Sealed(int64) []tiering.SealedRange { return d.ranges }

func (d *deposed) Tiered(base.LogID, base.LeaderEpoch, base.Offset) { d.late.Store(true) }

func (d *deposed) SwapRoots(ctx context.Context, roots []*metadata.Root, intents ...string) []error {
	errs := d.Meta.SwapRoots(ctx, roots, intents...)
	d.swaps.Add(int64(len(roots)))
	for _, err := range errs {
		if err == nil {
			d.committed.Add(1)
		}
	}
	return errs
}

// TestCommittersOfOneLogSerialize runs rounds and drops at the same time: neither is refused, none undoes the other.
func TestCommittersOfOneLogSerialize(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	e.Drain()
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 10 {
		for _, l := range logs {
			e.Source.Fill(l, rnd, 4, 100)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, err := e.Tier.RunOnce(context.Background()); e.T.Log(err) })
		for _, l := range logs {
			bounds, _ := e.Tier.Reader().Bounds(l.State.Log)
			start := bounds.End / 2
			e.Source.SetLogStart(l, start)
			wg.Go(func() {
				if err := e.Tier.DropBelow(context.Background(), l.State.Log, start); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		e.Drain()
		e.CheckReads(3000, logs...)
	}
	e.CheckRoots()
}

// TestDeletedRecordsLeaveAGap seals behind a log start that passed over what was never tiered (DeleteRecords).
func TestDeletedRecordsLeaveAGap(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	e.Drain()
	l, rnd := logs[0], rand.New(rand.NewPCG(4, 4))
	for range 5 {
		l.Batches = append(l.Batches, tiertest.NewBatch(l.End(), rnd, 50)) // never sealed
	}
	l.LogStart = l.End()
	e.Source.Fill(l, rnd, 5, 50)
	e.Drain()
	e.CheckReads(1000, l)
	e.CheckRoots()
}

// TestOtherBorders takes over from a leader that sealed the same batches in other ranges.
func TestOtherBorders(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	e.Drain()
	for _, l := range logs {
		from := len(l.Batches)
		for range 8 {
			l.Batches = append(l.Batches, tiertest.NewBatch(l.End(), rand.New(rand.NewPCG(6, 6)), 80))
		}
		l.Sealed = nil
		mid := l.Batches[from/2]
		rest := l.Batches
		l.Batches = rest[:from/2+1]
		e.Source.Seal(l, 0, l.Batches) // wholly tiered
		l.Batches = rest
		e.Source.Seal(l, mid.NextOffset(), rest[from/2+1:]) // tiered in part
		l.Tiered = 0
	}
	e.Drain()
	e.CheckReads(3000, logs...)
	e.CheckRoots()
	if rep := e.Fsck(time.Hour); !rep.Clean() {
		t.Fatalf("fsck: %+v", rep)
	}
}

// TestDeletedBeforeTiered moves the log start over sealed ranges that are not in the bucket yet.
func TestDeletedBeforeTiered(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	for _, l := range logs {
		e.Source.SetLogStart(l, l.Sealed[0].End)
	}
	e.Drain()
	e.CheckReads(2000, logs...)
	for _, l := range logs { // and all of it, with nothing behind
		e.Source.Fill(l, rand.New(rand.NewPCG(2, 2)), 3, 50)
		e.Source.SetLogStart(l, l.End())
	}
	e.Drain()
	e.Source.Fill(logs[0], rand.New(rand.NewPCG(2, 3)), 3, 50)
	e.Drain()
	e.CheckReads(2000, logs[0])
	e.CheckRoots()
	if rep := e.Fsck(time.Hour); !rep.Clean() {
		t.Fatalf("fsck: %+v", rep)
	}
}

// TestLogStartOvertakesUpload drops, between upload and commit, what is being tiered.
func TestLogStartOvertakesUpload(t *testing.T) {
	var e *tiertest.Env
	var overtake func()
	e = tiertest.New(t, func(o *tiering.Options) {
		o.Bucket = putHook{o.Bucket, func(key string) {
			if overtake != nil && tiering.ParseName(key).Kind != tiering.KindManifest {
				fn := overtake
				overtake = nil
				fn()
			}
		}}
	})
	logs := workload(e)
	e.Drain()
	for _, l := range logs {
		e.Source.Fill(l, rand.New(rand.NewPCG(2, 2)), 3, 50)
	}
	overtake = func() {
		for _, l := range logs {
			e.Check(e.Tier.DropBelow(context.Background(), l.State.Log, l.End()))
		}
	}
	e.Drain()
	for _, l := range logs {
		e.Source.SetLogStart(l, l.End())
		e.Source.Fill(l, rand.New(rand.NewPCG(2, 2)), 3, 50)
	}
	e.Drain()
	e.CheckReads(2000, logs...)
	e.CheckRoots()
}

// putHook calls fn before each PUT.
type putHook struct {
	tiering.Bucket
	fn func(key string)
}

func (b putHook) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	b.fn(key)
	return b.Bucket.Put(ctx, key, body)
}

// TestDamagedManifestKeepsNobodyElse damages the manifest of one log: the others are tiered on.
func TestDamagedManifestKeepsNobodyElse(t *testing.T) {
	e := tiertest.New(t, func(o *tiering.Options) { o.ManifestBytes = 1 })
	logs := workload(e)
	e.Drain()
	root, _, err := e.Store.Root(context.Background(), logs[0].State.Log)
	e.Check(err)
	e.Mem.Corrupt(root.Object, root.Pos+root.Len/2)
	e.Restart()
	for _, l := range logs {
		e.Source.Fill(l, rand.New(rand.NewPCG(2, 2)), 3, 50)
	}
	if _, err := e.Tier.RunOnce(context.Background()); !base.IsCorruption(err) {
		t.Fatalf("round with a damaged manifest: %v", err)
	}
	e.CheckReads(2000, logs[1], logs[2])
	before := len(e.Mem.Keys())
	for range 5 {
		if n, err := e.Tier.RunOnce(context.Background()); n != 0 || err != nil {
			t.Fatalf("%d ranges settled, %v", n, err)
		}
	}
	if n := len(e.Mem.Keys()); n != before {
		t.Fatalf("%d objects more after rounds that could not succeed", n-before)
	}
	e.Clock.Advance(time.Hour)
	if _, err := e.Tier.RunOnce(context.Background()); !base.IsCorruption(err) {
		t.Fatalf("an hour later: %v", err)
	}
}
