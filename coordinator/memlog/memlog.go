// Package memlog is the memory twin of coordinator.Log, with faults: it keeps batches in memory, holds commits back, and
// loses appends on demand. It is for tests and simulations; it does not know leadership.
package memlog

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/varvelog/varve/coordinator"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Log is a set of partitions in memory. The zero value is ready. Its methods may be called from any goroutine.
type Log struct {
	// Fail, if set, decides the fate of the n-th append (counted from 1 over all partitions): an error loses it. It is
	// called under the log's lock.
	Fail func(n int) error

	mu struct {
		sync.Mutex
		partitions map[int32][]record.Batch
		appends    int
		holding    bool
		held       []func()
	}
}

var _ coordinator.Log = (*Log)(nil)

// Append implements coordinator.Log. done runs in a goroutine of its own, or at Release while commits are held back.
func (l *Log) Append(partition int32, b record.Batch, done func(base.Offset, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.appends++
	n := l.mu.appends
	settle := func() { l.settle(partition, b, n, done) }
	if l.mu.holding {
		l.mu.held = append(l.mu.held, settle)
		return
	}
	go settle()
}

func (l *Log) settle(partition int32, b record.Batch, n int, done func(base.Offset, error)) {
	at, err := l.commit(partition, slices.Clone(b), n)
	done(at, err)
}

func (l *Log) commit(partition int32, b record.Batch, n int) (base.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Fail != nil {
		if err := l.Fail(n); err != nil {
			return base.NoOffset, fmt.Errorf("append %d: %w", n, err)
		}
	}
	b.SetBaseOffset(l.end(partition))
	if l.mu.partitions == nil {
		l.mu.partitions = map[int32][]record.Batch{}
	}
	l.mu.partitions[partition] = append(l.mu.partitions[partition], b)
	return b.BaseOffset(), nil
}

func (l *Log) end(partition int32) base.Offset {
	bs := l.mu.partitions[partition]
	if len(bs) == 0 {
		return 0
	}
	return bs[len(bs)-1].NextOffset()
}

// Replay implements coordinator.Log.
func (l *Log) Replay(ctx context.Context, partition int32, emit func(record.Batch) error) error {
	for _, b := range l.Batches(partition) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("replay partition %d: %w", partition, err)
		}
		if err := emit(b); err != nil {
			return err
		}
	}
	return nil
}

// Hold keeps the appends from now on from being settled until Release.
func (l *Log) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.holding = true
}

// Release settles, in order, what was held back, and ends Hold.
func (l *Log) Release() {
	l.mu.Lock()
	held := l.mu.held
	l.mu.held, l.mu.holding = nil, false
	l.mu.Unlock()
	for _, settle := range held {
		settle()
	}
}

// Held is the number of appends that are held back.
func (l *Log) Held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.held)
}

// Appends is the number of appends so far, lost ones included.
func (l *Log) Appends() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.appends
}

// Batches returns what is committed in a partition.
func (l *Log) Batches(partition int32) []record.Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.partitions[partition])
}

// Put commits a batch at once, as another writer (a transaction, an older leader) would have.
func (l *Log) Put(partition int32, b record.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b = slices.Clone(b)
	b.SetBaseOffset(l.end(partition))
	if l.mu.partitions == nil {
		l.mu.partitions = map[int32][]record.Batch{}
	}
	l.mu.partitions[partition] = append(l.mu.partitions[partition], b)
}
