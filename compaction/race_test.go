package compaction_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
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
