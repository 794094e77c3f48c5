package compaction_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/tiertest"
)

var errTimeout = errors.New("timeout")

// swapper lets a test decide about the swaps of a Tiering.
type swapper struct {
	tiering.Meta
	swap func(ctx context.Context, roots []*metadata.Root, intents ...string) []error
}

func (s *swapper) SwapRoots(ctx context.Context, roots []*metadata.Root, intents ...string) []error {
	if s.swap == nil {
		return s.Meta.SwapRoots(ctx, roots, intents...)
	}
	return s.swap(ctx, roots, intents...)
}

// withSwapper returns an Env whose Tiering swaps through the answered swapper.
func withSwapper(t *testing.T) (*tiertest.Env, *swapper) {
	s := &swapper{}
	e := tiertest.New(t, func(o *tiering.Options) { s.Meta = o.Meta; o.Meta = s })
	return e, s
}

// TestSwapThatComesTooLate has the replies of a round's swaps get lost and the swaps themselves reach the KV when the round
// is over, its intents are gone and a sweep has been there.
func TestSwapThatComesTooLate(t *testing.T) {
	e, s := withSwapper(t)
	logs := e.Topic("t", 3, forever)
	fill(e, logs, 1)
	e.Drain()
	fill(e, logs, 2)
	r := runner(e)
	e.Check(r.RunOnce(context.Background()))
	var late []func() []error
	s.swap = func(ctx context.Context, roots []*metadata.Root, intents ...string) []error {
		errs := make([]error, len(roots))
		copies := make([]*metadata.Root, len(roots))
		for i, root := range roots {
			c := *root
			errs[i], copies[i] = errTimeout, &c
		}
		late = append(late, func() []error { return s.Meta.SwapRoots(context.WithoutCancel(ctx), copies, intents...) })
		return errs
	}
	if _, err := e.Tier.RunOnce(context.Background()); err == nil {
		t.Fatal("the round did not fail")
	}
	settle(e, r)
	for _, swap := range late {
		for _, err := range swap() {
			if err == nil {
				t.Error("a swap was applied after the sweep")
			}
		}
	}
	s.swap = nil
	e.Restart()
	e.Drain()
	clean(e)
	e.CheckReads(2000, logs...)
}

// between is a metadata store that does something right before the intents are read.
type between struct {
	compaction.Meta
	intents func()
}

func (b *between) Intents(ctx context.Context) ([]metadata.Intent, error) {
	if b.intents != nil {
		b.intents()
		b.intents = nil
	}
	return b.Meta.Intents(ctx)
}

// TestTopicDeletionDuringACommit deletes a topic while a pack that it shares with another one is committed for the other:
// whatever the deletion reads first, the pack is covered by the intent or by the root.
func TestTopicDeletionDuringACommit(t *testing.T) {
	e, s := withSwapper(t)
	gone, stay := e.Topic("gone", 1, forever)[0], e.Topic("stay", 1, forever)[0]
	meta := &between{Meta: e.Store}
	r, err := compaction.New(compaction.Options{Bucket: e.Bucket, Tiering: e.Tier, Meta: meta, BrokerID: 1, BrokerEpoch: e.Epoch, Clock: e.Clock})
	e.Check(err)
	e.Check(r.RunOnce(context.Background()))
	rnd := rand.New(rand.NewPCG(1, 1))
	e.Source.Fill(gone, rnd, 2, 50)
	e.Source.Fill(stay, rnd, 2, 50)
	waits, commit := make(chan struct{}), make(chan struct{})
	attempt := 0
	s.swap = func(ctx context.Context, roots []*metadata.Root, intents ...string) []error {
		if attempt++; attempt > 1 {
			close(waits)
			<-commit
			return s.Meta.SwapRoots(ctx, roots, intents...)
		}
		errs := make([]error, len(roots))
		for i, root := range roots {
			errs[i] = errTimeout
			if root.Log == gone.State.Log {
				errs[i] = s.Meta.SwapRoots(ctx, []*metadata.Root{root}, intents...)[0]
			}
		}
		return errs
	}
	var round sync.WaitGroup
	round.Go(func() {
		if _, err := e.Tier.RunOnce(context.Background()); err != nil {
			t.Errorf("round: %v", err)
		}
	})
	<-waits
	deleteTopic(e, "gone")
	meta.intents = func() { close(commit); round.Wait() }
	e.Check(r.RunOnce(context.Background()))
	s.swap = nil
	e.Check(r.RunOnce(context.Background()))
	clean(e)
	e.CheckReads(500, stay)
	if b, ok := e.Tier.Reader().Bounds(stay.State.Log); !ok || b.Start != 0 || b.End == base.Offset(0) {
		t.Errorf("bounds of the log that stays: %+v", b)
	}
}

// TestTopicDeletionSparesForeignBucket deletes a topic in a bucket where another cluster gave away the same log ids.
func TestTopicDeletionSparesForeignBucket(t *testing.T) {
	a := tiertest.New(t, nil)
	fill(a, a.Topic("t", 2, forever), 1)
	a.Drain()
	b := tiertest.New(t, nil)
	for _, key := range a.Mem.Keys() {
		data, err := a.Mem.Get(context.Background(), key, 0, -1)
		a.Check(err)
		put(b, key, data)
	}
	fill(b, b.Topic("u", 2, forever), 2)
	b.Drain()
	deleteTopic(b, "u")
	if err := runner(b).RunOnce(context.Background()); err == nil {
		t.Error("the sweep did not refuse the bucket")
	}
	if got := b.Mem.Keys(); !slices.Equal(got, a.Mem.Keys()) {
		t.Fatalf("the bucket holds %v, the other cluster wrote %v", got, a.Mem.Keys())
	}
	if left, err := b.Store.DeletedLogs(context.Background()); err != nil || len(left) != 0 {
		t.Fatalf("deleted logs: %v %v", left, err)
	}
}

// TestDeletedLogThatMustWait keeps one of two deleted logs with an intent: what its manifests name stays as long as they do,
// also what it shares with the other.
func TestDeletedLogThatMustWait(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := e.Topic("t", 2, forever)
	rnd := rand.New(rand.NewPCG(1, 1))
	e.Source.Fill(logs[0], rnd, 2, 50)
	e.Source.Fill(logs[1], rnd, 2, 50)
	e.Drain()
	e.Source.Fill(logs[1], rnd, 2, 50)
	e.Drain()
	root, _, err := e.Store.Root(context.Background(), logs[1].State.Log)
	e.Check(err)
	epoch, err := e.Store.RegisterBroker(context.Background(), metadata.Broker{ID: 2, Host: "127.0.0.1", Port: 9093}) // fenced, and alive
	e.Check(err)
	e.Check(e.Store.PutIntent(context.Background(), metadata.Intent{ID: "other", Broker: 2, Epoch: epoch, Objects: []string{root.Object}}))
	deleteTopic(e, "t")
	r := runner(e)
	for range 2 {
		e.Check(r.RunOnce(context.Background()))
		clean(e)
	}
	e.Check(e.Store.DeleteIntents(context.Background(), "other"))
	settle(e, r)
	if keys := e.Mem.Keys(); len(keys) != 0 {
		t.Fatalf("objects are left: %v", keys)
	}
}

// TestEverythingAtOnce runs a round, drops, a topic's deletion and two runners at the same time, without a grace period: what
// the current roots name is always there.
func TestEverythingAtOnce(t *testing.T) {
	e := tiertest.New(t, func(o *tiering.Options) { o.SpillEntries = 2 })
	var runners []*compaction.Runner
	for range 2 {
		r, err := compaction.New(compaction.Options{Bucket: e.Bucket, Tiering: e.Tier, Meta: e.Store, BrokerID: 1, BrokerEpoch: e.Epoch, Clock: e.Clock, Grace: func() time.Duration { return 0 }})
		e.Check(err)
		runners = append(runners, r)
	}
	logs := e.Topic("t", 3, forever)
	for i := range uint64(12) {
		name := fmt.Sprint("gone", i)
		gone := e.Topic(name, 2, forever)
		fill(e, append(slices.Clone(gone), logs...), i)
		_, _ = e.Tier.RunOnce(context.Background()) // ranges of deleted topics, which this source keeps, are refused
		fill(e, append(slices.Clone(gone), logs...), i+100)
		drops := map[base.LogID]base.Offset{}
		for _, l := range logs[:2] {
			b, _ := e.Tier.Reader().Bounds(l.State.Log)
			l.LogStart = b.End / 2
			drops[l.State.Log] = l.LogStart
		}
		var all sync.WaitGroup
		all.Go(func() { _, _ = e.Tier.RunOnce(context.Background()) }) // the deleted topic's part of it is refused
		all.Go(func() { e.Check(e.Tier.DropMany(context.Background(), drops)) })
		all.Go(func() { deleteTopic(e, name) })
		for _, r := range runners {
			all.Go(func() {
				for range 3 {
					_ = r.RunOnce(context.Background()) // the other one may have deleted what it was about to read
				}
			})
		}
		all.Wait()
		roots, err := e.Store.Roots(context.Background())
		e.Check(err)
		fresh := e.NewTiering()
		for _, l := range logs {
			m, err := fresh.Load(context.Background(), roots[l.State.Log])
			e.Check(err)
			e.Check(fresh.EntriesOf(context.Background(), m, func(entry manifest.Entry) bool {
				if _, err := e.Mem.Head(context.Background(), entry.Object); err != nil {
					t.Errorf("round %d: %s [%d, %d): %v", i, l.State.TP, entry.Base, entry.End, err)
				}
				return true
			}))
		}
	}
	e.Restart()
	_, _ = e.Tier.RunOnce(context.Background())
	e.CheckReads(2000, logs...)
	e.CheckRoots()
}
