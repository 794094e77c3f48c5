package tiertest

import (
	"context"
	"sync"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

// Bench is a source and a metadata store for benchmarks: one log whose ranges repeat one batch, roots that never fail.
type Bench struct {
	batches         []record.Batch
	ranges, inRange int
	c               chan struct{}
	mu              struct {
		sync.Mutex
		tiered base.Offset
		root   metadata.Root
		ok     bool
	}
}

// NewBench repeats a batch: ranges ranges of inRange batches.
func NewBench(batch record.Batch, ranges, inRange int) *Bench {
	b := &Bench{ranges: ranges, inRange: inRange, c: make(chan struct{})}
	per := batch.NextOffset() - batch.BaseOffset()
	for i := range ranges * inRange {
		x := append(record.Batch(nil), batch...)
		x.SetBaseOffset(base.Offset(i) * per)
		b.batches = append(b.batches, x)
	}
	return b
}

// Reset makes everything untiered.
func (b *Bench) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.tiered, b.mu.root, b.mu.ok = 0, metadata.Root{}, false
}

// Left counts the ranges that are not tiered.
func (b *Bench) Left() int { return len(b.Sealed(1 << 62)) }

// Sealed implements tiering.Source.
func (b *Bench) Sealed(maxBytes int64) (out []tiering.SealedRange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum int64
	for i := range b.ranges {
		in := b.batches[i*b.inRange : (i+1)*b.inRange]
		r := tiering.SealedRange{Log: 1, TP: base.TopicPartition{Topic: "bench"}, Base: in[0].BaseOffset(), End: in[len(in)-1].NextOffset(), Bytes: int64(len(in) * len(in[0]))}
		if r.End <= b.mu.tiered {
			continue
		}
		if sum += r.Bytes; sum > maxBytes && len(out) > 0 {
			break
		}
		out = append(out, r)
	}
	return out
}

// SealedC implements tiering.Source.
func (b *Bench) SealedC() <-chan struct{} { return b.c }

// ReadSealed implements tiering.Source.
func (b *Bench) ReadSealed(_ context.Context, r tiering.SealedRange, emit func(record.Batch) error) error {
	per := b.batches[0].NextOffset()
	for _, x := range b.batches[r.Base/per : r.End/per] {
		if err := emit(x); err != nil {
			return err
		}
	}
	return nil
}

// Tiered implements tiering.Source.
func (b *Bench) Tiered(_ base.LogID, _ base.LeaderEpoch, end base.Offset) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.tiered = end
}

// Image implements tiering.Meta: there is none.
func (b *Bench) Image() *metadata.Image { return nil }

// Roots implements tiering.Meta.
func (b *Bench) Roots(context.Context) (map[base.LogID]metadata.Root, error) { return nil, nil }

// WatchRoots implements tiering.Meta. There is none: a Bench is not for Start.
func (b *Bench) WatchRoots() *metadata.RootWatch { return nil }

// Root implements tiering.Meta.
func (b *Bench) Root(context.Context, base.LogID) (metadata.Root, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.root, b.mu.ok, nil
}

// SwapRoots implements tiering.Meta.
func (b *Bench) SwapRoots(_ context.Context, roots []*metadata.Root, _ ...string) []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range roots {
		r.Rev++
		b.mu.root, b.mu.ok = *r, true
	}
	return make([]error, len(roots))
}

// PutIntent implements tiering.Meta.
func (b *Bench) PutIntent(context.Context, metadata.Intent) error { return nil }

// DeleteIntents implements tiering.Meta.
func (b *Bench) DeleteIntents(context.Context, ...string) error { return nil }

// Intents implements tiering.Meta.
func (b *Bench) Intents(context.Context) ([]metadata.Intent, error) { return nil, nil }
