package tiering_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// TestTwoLeaders lets a leader of an older epoch and the current one archive the same ranges at the same time (I4).
func TestTwoLeaders(t *testing.T) {
	for seed := range uint64(20) {
		e := tiertest.New(t, nil)
		logs := workload(e)
		old := e.Tier
		oldSource := staleSource{Source: e.Source, ranges: e.Source.Sealed(1 << 62), accepted: map[base.LogID]base.Offset{}}
		oldTier := tieringOver(e, &oldSource)
		e.Epoch, _ = 0, old
		e.Restart() // registers again: the partitions have the next leader epoch
		var wg sync.WaitGroup
		start := make(chan struct{})
		var oldErr error
		wg.Go(func() { <-start; _, oldErr = oldTier.RunOnce(context.Background()) })
		wg.Go(func() { <-start; _, _ = e.Tier.RunOnce(context.Background()) })
		close(start)
		wg.Wait()
		e.Drain()
		if len(oldSource.accepted) != 0 {
			t.Fatalf("seed %d: a leader of an old epoch committed: %v", seed, oldSource.accepted)
		}
		if !errors.Is(oldErr, kerr.FencedLeaderEpoch) {
			t.Fatalf("seed %d: the old leader got %v", seed, oldErr)
		}
		e.CheckReads(4000, logs...)
		e.CheckRoots()
		if rep := e.Fsck(time.Hour); !rep.Clean() {
			t.Fatalf("seed %d: fsck %+v", seed, rep)
		}
	}
}

// staleSource is the hot store of a leader that was deposed and does not know.
type staleSource struct {
	*tiertest.Source
	ranges   []tiering.SealedRange
	mu       sync.Mutex
	accepted map[base.LogID]base.Offset
}

func (s *staleSource) Sealed(int64) []tiering.SealedRange { return s.ranges }

func (s *staleSource) Tiered(log base.LogID, _ base.LeaderEpoch, end base.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted[log] = end
}

func tieringOver(e *tiertest.Env, s tiering.Source) *tiering.Tiering {
	e.T.Helper()
	tune := e.Tune
	e.Tune = func(o *tiering.Options) { o.Source = s }
	defer func() { e.Tune = tune }()
	return e.NewTiering()
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
			l.LogStart = l.Tiered / 2
			wg.Go(func() {
				if err := e.Tier.DropBelow(context.Background(), l.State.Log, l.LogStart); err != nil {
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
