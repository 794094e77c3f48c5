package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
)

// Sizes of the blocks of ids that a broker takes at a time. What is left of a block at a crash is lost, never reused.
const (
	producerIDBlock = 1000
	logIDBlock      = 1000
)

// idRepeats is how often a write of the counter is tried again that was not answered: each may take seconds, which the client waits.
const idRepeats = 2

// idBlocks hands out numbers that were never handed out before, by any broker: it takes blocks from a counter in the KV and
// fetches the next one when a tenth is left. It is safe for concurrent use.
type idBlocks struct {
	kv     KV
	group  *service.Group
	logger *slog.Logger
	key    string
	size   int64
	first  int64         // where a new cluster starts
	fetch  chan struct{} // one slot: one fetch at a time
	mu     struct {
		sync.Mutex
		blocks [][2]int64 // [next, end)
		ahead  bool       // a prefetch is under way
	}
}

func newIDBlocks(kv KV, group *service.Group, logger *slog.Logger, key string, size, first int64) *idBlocks {
	return &idBlocks{kv: kv, group: group, logger: logger, key: key, size: size, first: first, fetch: make(chan struct{}, 1)}
}

// next returns n ids, not always consecutive.
func (b *idBlocks) next(ctx context.Context, n int) ([]int64, error) {
	for {
		ids, left, ok := b.take(n)
		if ok {
			if left < b.size/10 {
				b.prefetch()
			}
			return ids, nil
		}
		select {
		case b.fetch <- struct{}{}:
		case <-ctx.Done():
			return nil, kvError(ctx.Err(), "take ids from %s", b.key)
		}
		err := b.fill(ctx, n)
		<-b.fetch
		if err != nil {
			return nil, err
		}
	}
}

// take removes n ids, all or none.
func (b *idBlocks) take(n int) (ids []int64, left int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, block := range b.mu.blocks {
		left += block[1] - block[0]
	}
	if left < int64(n) {
		return nil, left, false
	}
	ids = make([]int64, 0, n)
	for len(ids) < n {
		block := &b.mu.blocks[0]
		ids = append(ids, block[0])
		if block[0]++; block[0] == block[1] {
			b.mu.blocks = b.mu.blocks[1:]
		}
	}
	return ids, left - int64(n), true
}

// prefetch takes the next block in the background.
func (b *idBlocks) prefetch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.ahead {
		return
	}
	b.mu.ahead = b.group.Go(func(ctx context.Context) {
		if err := b.reserve(ctx, b.size); err != nil && ctx.Err() == nil {
			b.logger.Warn("id block prefetch failed", slog.String("key", b.key), slog.Any("error", err))
		}
		b.mu.Lock()
		b.mu.ahead = false
		b.mu.Unlock()
	})
}

// fill reserves until there are n ids, unless somebody else did meanwhile.
func (b *idBlocks) fill(ctx context.Context, n int) error {
	b.mu.Lock()
	var left int64
	for _, block := range b.mu.blocks {
		left += block[1] - block[0]
	}
	b.mu.Unlock()
	if left >= int64(n) {
		return nil
	}
	return b.reserve(ctx, max(b.size, int64(n)))
}

// reserve moves the counter on and adds the block. After an unknown outcome it takes the next one: what may be lost is harmless. A
// read that fails ends it, for the KV has tried that again.
func (b *idBlocks) reserve(ctx context.Context, size int64) error {
	unanswered := 0
	for range casAttempts {
		kv, ok, err := b.kv.Get(ctx, b.key)
		if err != nil {
			return kvError(err, "read %s", b.key)
		}
		start := b.first
		if ok {
			if start, err = strconv.ParseInt(string(kv.Value), 10, 64); err != nil {
				return base.MarkCorruption(fmt.Errorf("metadata key %s: %w", b.key, err))
			}
		}
		end := start + size
		res, err := b.kv.Txn(ctx, []Cmp{Unchanged(b.key, kv.ModRevision)}, []Op{Put(b.key, strconv.AppendInt(nil, end, 10))})
		switch {
		case err == nil && res.Committed:
			b.mu.Lock()
			b.mu.blocks = append(b.mu.blocks, [2]int64{start, end})
			b.mu.Unlock()
			return nil
		case err == nil: // another broker took it
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && unanswered < idRepeats:
			unanswered++
		default:
			return kvError(err, "write %s", b.key)
		}
	}
	return fmt.Errorf("take ids from %s: %w", b.key, errLostRace)
}

// NextProducerID hands out a producer id that was never handed out before (blocks of 1000). While there is none to be had it is
// kerr.CoordinatorLoadInProgress, as in Kafka (RPCProducerIdManager): older producers end on every other code.
func (s *Store) NextProducerID(ctx context.Context) (base.ProducerID, error) {
	ids, err := s.pids.next(ctx, 1)
	if errors.Is(err, kerr.RequestTimedOut) {
		err = fmt.Errorf("no producer id yet: %w: %w", kerr.CoordinatorLoadInProgress, err)
	}
	if err != nil {
		return base.NoProducerID, err
	}
	return base.ProducerID(ids[0]), nil
}
