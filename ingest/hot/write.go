package hot

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
	"github.com/varvelog/varve/record"
)

// maxPooledBytes bounds the buffer that a recycled write keeps.
const maxPooledBytes = 4 << 20

// Write collects what is committed together: all or nothing survives a crash. Use one per produce request, coordinator append
// or follower fetch. It belongs to one goroutine, and to the store again once it was applied or discarded.
type Write struct {
	store *Store
	batch *pebble.Batch
	bytes int64 // of record batches
	err   error // the first misuse; Apply returns it
}

// NewWrite returns an empty write.
func (s *Store) NewWrite() *Write { return s.NewWriteSize(0) }

// NewWriteSize returns an empty write with room for sizeBytes of batches and rows: a right guess saves copies.
func (s *Store) NewWriteSize(sizeBytes int) *Write {
	w, _ := s.writes.Get().(*Write)
	if w == nil {
		w = &Write{store: s}
	}
	// 1 KiB: the batch header, and the keys and rows of a request over some tens of partitions.
	w.batch = s.db.NewBatchWithSize(sizeBytes+1024, pebble.WithMaxRetainedSizeBytes(maxPooledBytes))
	return w
}

// Append adds a batch (its base offset and epoch set). The bytes are copied.
func (w *Write) Append(log base.LogID, b record.Batch) {
	first, last, err := checkHeader(b)
	if err != nil {
		invariants.Assert(false, "append to log %s: %v", log, err)
		w.misuse(fmt.Errorf("append to log %s at offset %d: %w", log, first, err))
		return
	}
	op := w.batch.SetDeferred(offsetKeyLen, len(b))
	putKey(op.Key, spaceData, log, last)
	copy(op.Value, b)
	w.misuse(op.Finish())
	w.bytes += int64(len(b))
}

// SetMeta replaces the checkpoint of a log.
func (w *Write) SetMeta(log base.LogID, m *Meta) {
	w.misuse(w.batch.Set(logKey(spaceMeta, log), m.encode(), nil))
}

// SetSealed adds, or replaces, the row of the sealed range that ends at r.End.
func (w *Write) SetSealed(log base.LogID, r *Sealed) {
	if r.Base < 0 || r.End <= r.Base {
		w.misuse(fmt.Errorf("sealed range [%d,%d) of log %s is empty", r.Base, r.End, log))
		return
	}
	w.misuse(w.batch.Set(offsetKey(spaceSealed, log, r.End-1), r.encode(), nil))
}

// SetIndex adds an index entry.
func (w *Write) SetIndex(log base.LogID, e IndexEntry) {
	w.misuse(w.batch.Set(offsetKey(spaceIndex, log, e.Offset), e.encode(), nil))
}

// Truncate removes the batches and sealed ranges that reach from or beyond, and the index entries at or after it (I2). end is
// the log end. A batch that contains from goes as a whole; its index entry, which is before from, stays, and is still true of
// the batch that follows there. What the same write appends afterwards stays.
func (w *Write) Truncate(log base.LogID, from, end base.Offset) {
	w.deleteRange(spaceData, log, from, end)
	w.deleteRange(spaceSealed, log, from, end)
	// The end itself too: an entry that an earlier truncation left there would now be inside some later batch.
	w.deleteRange(spaceIndex, log, from, end+1)
}

// Trim adds one log's part of a TrimAll.
func (w *Write) Trim(t Trim) {
	w.deleteRange(spaceData, t.Log, t.From, t.To)
	w.deleteRange(spaceIndex, t.Log, t.From, t.To)
	w.deleteRange(spaceSealed, t.Log, t.From, t.To)
	if t.Meta != nil {
		w.SetMeta(t.Log, t.Meta)
	}
}

func (w *Write) deleteRange(space byte, log base.LogID, from, to base.Offset) {
	if to <= max(from, 0) {
		return
	}
	op := w.batch.DeleteRangeDeferred(offsetKeyLen, offsetKeyLen)
	putKey(op.Key, space, log, from)
	putKey(op.Value, space, log, to)
	w.misuse(op.Finish())
}

// Discard gives back a write that is not applied.
func (w *Write) Discard() {
	b := w.take()
	_ = b.Close() // an uncommitted batch only goes back to its pool
}

// take empties the write, gives it back to the pool and returns its batch.
func (w *Write) take() *pebble.Batch {
	b, s := w.batch, w.store
	*w = Write{store: s}
	s.writes.Put(w)
	return b
}

func (w *Write) misuse(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Apply puts the write in order (Pebble's ApplyNoSyncWait). It is visible to Read at once and durable when Wait returns nil.
// Two writes are durable in the order in which they were applied. It copies into the log's buffer and the memtable and does
// not wait for the disk, except where the disk cannot keep up or is full; so the caller may hold the lock that orders a log.
// An error means that nothing was written. The write is gone in either case.
func (s *Store) Apply(w *Write) (*Commit, error) {
	b, err := s.apply(w, pebble.Sync)
	if err != nil {
		return nil, err
	}
	return &Commit{store: s, batch: b}, nil
}

// ApplyNoSync applies without waiting for durability (checkpoints, trims): a crash may undo it, and with it every write after
// it that nobody waited for.
func (s *Store) ApplyNoSync(w *Write) error {
	b, err := s.apply(w, pebble.NoSync)
	if err != nil {
		return err
	}
	return b.Close()
}

// apply hands the write's batch to Pebble and returns it.
func (s *Store) apply(w *Write, o *pebble.WriteOptions) (_ *pebble.Batch, err error) {
	misuse, bytes := w.err, w.bytes // before take: Go does not order reads of variables and calls in one statement
	b := w.take()
	err = errors.Join(misuse, s.Failed())
	if err == nil {
		err = s.use()
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	defer s.lifetime.exit()
	defer func() {
		// Pebble panics when the log is beyond writing, which the goroutine that waits for the sync learns only later.
		if r := recover(); r != nil {
			err = s.fail(fmt.Errorf("pebble panicked: %v\n%s", r, debug.Stack()))
		}
	}()
	s.stats.commits.Add(1)
	s.stats.inputBytes.Add(bytes)
	if o.Sync {
		err = s.db.ApplyNoSyncWait(b, o)
	} else {
		err = s.db.Apply(b, o)
	}
	if err != nil {
		return nil, s.fail(fmt.Errorf("apply: %w", err))
	}
	return b, nil
}

// Commit is an applied write on its way to stable storage. Wait must be called, or its buffer goes to the garbage collector.
type Commit struct {
	store *Store
	once  sync.Once
	batch *pebble.Batch
	err   error
}

// Wait blocks until the write is on stable storage. Every error is final for the process (style 19): the store has called
// Options.OnFatal. It may be called more than once, and from several goroutines.
func (c *Commit) Wait() error {
	c.once.Do(func() {
		c.err = c.store.waitSync(c.batch)
		c.batch = nil
	})
	return c.err
}

// waitSync waits for the batch's sync or for the store's failure: after one, Pebble's own wait would not end (disk.die), so it
// has a goroutine of its own, which costs a microsecond per commit.
func (s *Store) waitSync(b *pebble.Batch) error {
	synced := make(chan error, 1)
	if !s.waits.Go(func(context.Context) { synced <- b.SyncWait() }) {
		synced <- b.SyncWait() // closed: Close has synced everything
	}
	var err error
	select {
	case err = <-synced:
	case <-s.failed:
		return s.Failed()
	}
	if err != nil {
		return s.fail(fmt.Errorf("sync: %w", err))
	}
	return b.Close()
}
