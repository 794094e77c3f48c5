// Package tiering moves sealed ranges into the bucket and reads them back. It only adds objects.
package tiering

import (
	"context"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// SealedRange is a range of a partition that this broker leads, closed for appends and below the high watermark (I3).
type SealedRange struct {
	Log          base.LogID
	TP           base.TopicPartition
	TopicID      base.TopicID
	Base, End    base.Offset
	Bytes        int64
	MaxTimestamp int64
	LogStart     base.Offset
	LeaderEpoch  base.LeaderEpoch  // of this broker's leadership: the fence
	Epochs       []base.EpochStart // leader epochs of the whole log up to End
	Producers    []byte            // snapshot as of End, opaque
	SealedAtMs   int64
}

// Source is where sealed ranges come from; ingest satisfies it.
type Source interface {
	// Sealed lists, oldest seal first, ranges that are ready: per log the next one after its tiered end and those that follow.
	Sealed(maxBytes int64) []SealedRange
	// SealedC is signalled when there may be more.
	SealedC() <-chan struct{}
	// ReadSealed yields the range's batches in order, whole batches, exactly [Base, End).
	ReadSealed(ctx context.Context, r SealedRange, emit func(record.Batch) error) error
	// Tiered is called after the manifest that names everything below end was committed (I5).
	Tiered(log base.LogID, epoch base.LeaderEpoch, end base.Offset)
}

// Reader serves tiered ranges. What it returns equals what the hot store returned for the same offsets (I8).
type Reader struct{}

// Read returns whole batches starting with the one that contains from, about maxBytes, at least one. It does not cross
// the tiered end. kerr.OffsetOutOfRange where nothing tiered holds from.
func (r *Reader) Read(ctx context.Context, log base.LogID, from base.Offset, maxBytes int) ([]record.Batch, error) {
	panic("not built")
}

// OffsetForTime finds the first tiered record at or after offset from whose timestamp is >= ts.
func (r *Reader) OffsetForTime(ctx context.Context, log base.LogID, ts int64, from base.Offset) (off base.Offset, timestamp int64, ok bool, err error) {
	panic("not built")
}

// MaxTimestamp finds the tiered record with the largest timestamp, the earliest such.
func (r *Reader) MaxTimestamp(ctx context.Context, log base.LogID) (off base.Offset, timestamp int64, ok bool, err error) {
	panic("not built")
}

// AbortedTxn is an aborted transaction (KIP-98).
type AbortedTxn struct {
	ProducerID  base.ProducerID
	FirstOffset base.Offset
	LastOffset  base.Offset
}

// Aborted lists aborted transactions that overlap [from, to).
func (r *Reader) Aborted(ctx context.Context, log base.LogID, from, to base.Offset) ([]AbortedTxn, error) {
	panic("not built")
}

// Bounds is what is tiered: [Start, End) and its cost.
type Bounds struct {
	Start, End     base.Offset
	Bytes, Objects int64
}

// Bounds answers from memory.
func (r *Reader) Bounds(log base.LogID) (Bounds, bool) { panic("not built") }
