package coordinator

import (
	"context"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Log is an internal topic as a coordinator sees it; package broker hands in ingest and fetch.
type Log interface {
	// Append puts one batch (built with record.Build, offsets from 0) in order, in the leader epoch that it names: in another one it
	// fails with kerr.NotLeaderForPartition, since others may have written in between. The order is fixed when it returns. done is
	// called exactly once, from another goroutine or from this one, when the batch is committed (the high watermark passed
	// it) or will never be.
	Append(partition int32, b record.Batch, done func(base.Offset, error))
	// Replay yields every committed batch of the partition from its log start offset to the high watermark, in order.
	Replay(ctx context.Context, partition int32, emit func(record.Batch) error) error
}
