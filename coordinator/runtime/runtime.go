package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
)

// Runtime holds the shards of one internal topic on this broker. Its methods may be called from any goroutine.
type Runtime[M Machine] struct {
	opts  Options[M]
	group *service.Group
	inst  *instruments

	mu struct {
		sync.Mutex
		shards map[int32]*shard[M] // the newest shard of each partition ever led, resigned or not
	}
}

// New returns a runtime that leads nothing.
func New[M Machine](opts Options[M]) *Runtime[M] {
	opts.EnsureDefaults()
	r := &Runtime[M]{opts: opts, group: service.NewGroup(context.Background())}
	r.inst = newInstruments(opts.Meter, opts.Name)
	r.mu.shards = map[int32]*shard[M]{}
	return r
}

// Lead starts the shard of a partition that this broker leads in the given epoch. It returns at once; until the log is
// replayed, Call answers COORDINATOR_LOAD_IN_PROGRESS (I15). An epoch that is not newer than the one being led is ignored.
func (r *Runtime[M]) Lead(partition int32, epoch base.LeaderEpoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.mu.shards[partition]
	if old != nil && !old.stopped() && old.epoch >= epoch {
		return
	}
	r.start(partition, epoch, old)
}

// start replaces old, which may be nil. The lock is held.
func (r *Runtime[M]) start(partition int32, epoch base.LeaderEpoch, old *shard[M]) {
	s := newShard(r, partition, epoch, old)
	r.mu.shards[partition] = s
	if old != nil {
		old.stop()
	}
	if !r.group.Go(s.run) {
		s.stop()
		close(s.drained)
	}
}

// Resign ends the shard of a partition: requests that wait and requests that come get NOT_COORDINATOR.
func (r *Runtime[M]) Resign(partition int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.mu.shards[partition]; s != nil {
		s.stop()
	}
}

// reload replaces a shard that cannot know its log's end any more by one that replays it.
func (r *Runtime[M]) reload(s *shard[M]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.shards[s.partition] == s && !s.stopped() {
		r.opts.Logger.Warn("coordinator shard reloads", slog.String("coordinator", r.opts.Name),
			slog.Int("partition", int(s.partition)), slog.Int("epoch", int(s.epoch)))
		r.start(s.partition, s.epoch, s)
	}
}

// Partitions lists the partitions that this broker coordinates, loading ones included, in order.
func (r *Runtime[M]) Partitions() []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []int32
	for p, s := range r.mu.shards {
		if !s.stopped() {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// Call runs step in the shard of the partition and waits for the answer to its promise, which may be due only after
// later steps. Errors: NOT_COORDINATOR where the partition is not led here (any more), COORDINATOR_LOAD_IN_PROGRESS while
// it loads, the log's error where the step's records could not be committed, and ctx's.
func (r *Runtime[M]) Call(ctx context.Context, partition int32, step func(m M, fx *Effects, p *Promise)) (any, error) {
	r.mu.Lock()
	s := r.mu.shards[partition]
	r.mu.Unlock()
	if s == nil || s.stopped() {
		return nil, fmt.Errorf("coordinator partition %d: %w", partition, kerr.NotCoordinator)
	}
	select {
	case <-s.loaded:
	default:
		return nil, fmt.Errorf("coordinator partition %d: %w", partition, kerr.CoordinatorLoadInProgress)
	}
	r.inst.add(r.inst.requests, 1)
	defer r.inst.add(r.inst.requests, -1)
	p := NewPromise()
	select {
	case s.mailbox <- func(m M, fx *Effects) { step(m, fx, p) }:
	case <-s.ctx.Done():
		return nil, fmt.Errorf("coordinator partition %d: %w", partition, kerr.NotCoordinator)
	case <-ctx.Done():
		return nil, fmt.Errorf("coordinator partition %d: %w", partition, ctx.Err())
	}
	select {
	case o := <-p.c:
		return o.value, o.err
	case <-s.ctx.Done():
		return nil, fmt.Errorf("coordinator partition %d: %w", partition, kerr.NotCoordinator)
	case <-ctx.Done():
		return nil, fmt.Errorf("coordinator partition %d: %w", partition, ctx.Err())
	}
}

// Stop ends all shards and waits for their goroutines, or for ctx.
func (r *Runtime[M]) Stop(ctx context.Context) error {
	r.mu.Lock()
	for _, s := range r.mu.shards {
		s.stop()
	}
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { r.group.Stop(); close(done) }() // not in the group: it waits for the group
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s coordinator: %w", r.opts.Name, ctx.Err())
	}
}

// PostAll runs step in every shard that this broker leads, once each, after it is loaded. It returns at once; a shard that is
// stopped before its turn has come is left out.
func (r *Runtime[M]) PostAll(step func(m M, fx *Effects)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.mu.shards {
		if s.stopped() {
			continue
		}
		r.group.Go(func(context.Context) {
			select {
			case <-s.loaded:
			case <-s.ctx.Done():
				return
			}
			select {
			case s.mailbox <- step:
			case <-s.ctx.Done():
			}
		})
	}
}
