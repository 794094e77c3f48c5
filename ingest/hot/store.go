// Package hot stores the hot tail of every partition of a broker in one Pebble instance.
package hot

import (
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Store is the hot store of one broker (one data disk).
type Store struct{}

// Meta is the 'm' row of a log: its checkpoint. Everything after it is rebuilt from the batches behind DurableEnd.
type Meta struct {
	LogStart  base.Offset       // first offset that a consumer may read, over both tiers
	HotStart  base.Offset       // first offset kept in Pebble
	HighWater base.Offset       // of the last checkpoint
	End       base.Offset       // log end that Epochs and Producers describe
	Epochs    []base.EpochStart // all leader epochs of the log, ascending
	Producers []byte            // opaque to the store: ingest's producer snapshot as of End
}

// Sealed is an 's' row: a range that was closed for appends, with the producer snapshot as of its end.
type Sealed struct {
	Base, End    base.Offset // [Base, End)
	Bytes        int64
	MaxTimestamp int64 // largest record timestamp, ms
	SealedAtMs   int64
	Producers    []byte
}

// IndexEntry is an 'i' row, one per about 256 KiB of a log: a sparse index by offset, bytes and time.
type IndexEntry struct {
	Offset       base.Offset // base offset of a batch
	Bytes        int64       // bytes of the log since it was created before this batch: differences are sizes
	MaxTimestamp int64       // largest record timestamp of the log before this batch (from HotStart on), ms
}

// Log is what recovery knows of a log.
type Log struct {
	ID     base.LogID
	Meta   Meta
	End    base.Offset // offset after the last stored batch; Meta.End where none is stored
	Sealed []Sealed
	Index  []IndexEntry
}

// Write collects what is committed together (one produce request, one coordinator append, one follower fetch).
type Write struct{}

func (s *Store) NewWrite() *Write { panic("not built") }

// Append adds a batch (its base offset and epoch set). The bytes are copied.
func (w *Write) Append(log base.LogID, b record.Batch)          { panic("not built") }
func (w *Write) SetMeta(log base.LogID, m *Meta)                { panic("not built") }
func (w *Write) SetSealed(log base.LogID, s *Sealed)            { panic("not built") }
func (w *Write) SetIndex(log base.LogID, e IndexEntry)          { panic("not built") }
func (w *Write) Truncate(log base.LogID, from, end base.Offset) { panic("not built") } // removes batches, index and sealed rows >= from

// Apply puts the write in order (Pebble's ApplyNoSyncWait). It is visible to Read at once and durable when Wait returns nil.
func (s *Store) Apply(w *Write) (*Commit, error) { panic("not built") }

// Commit is an applied write on its way to stable storage.
type Commit struct{}

// Wait blocks until the write is on stable storage. Every error is final for the process (style 19): the store has called
// Options.OnFatal.
func (c *Commit) Wait() error { panic("not built") }

// ApplyNoSync applies without waiting for durability (checkpoints, trims).
func (s *Store) ApplyNoSync(w *Write) error { panic("not built") }

// Read returns whole batches from the one that contains from, up to maxBytes, none that reaches upTo or beyond. The first
// batch is returned even where it alone is larger than maxBytes. Empty where nothing is stored in the range.
func (s *Store) Read(log base.LogID, from, upTo base.Offset, maxBytes int) ([]record.Batch, error) {
	panic("not built")
}

// Trim is one log's part of a TrimAll: drop [From, To). New start offsets go into the 'm' rows of the same write.
type Trim struct {
	Log      base.LogID
	From, To base.Offset
	Meta     *Meta
}

// TrimAll drops hot ranges in one NoSync write of disjoint range deletions.
func (s *Store) TrimAll(trims []Trim) error { panic("not built") }

// Drop removes everything of a log (topic deletion).
func (s *Store) Drop(logs []base.LogID) error { panic("not built") }

// Logs loads what Open found. Nothing but 'm', 's' and 'i' rows is scanned, and one seek per log.
func (s *Store) Logs() ([]Log, error) { panic("not built") }

// Reclaim flushes and compacts what was trimmed (idle, or above the soft disk limit).
func (s *Store) Reclaim() error { panic("not built") }
func (s *Store) Close() error   { panic("not built") }
