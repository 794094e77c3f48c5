// Package ingest is the write path: validate, order, commit, replicate, seal.
package ingest

import (
	"context"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Ingest holds the partitions of this broker.
type Ingest struct{}

// AppendRequest is one partition's part of a produce request.
type AppendRequest struct {
	TP          base.TopicPartition
	Records     []byte // the records field as the client sent it; kept, not copied
	ZstdAllowed bool   // Produce >= 7
}

// AppendResult answers one AppendRequest.
type AppendResult struct {
	BaseOffset      base.Offset
	LogAppendTimeMs int64 // -1 where the topic has CreateTime
	LogStart        base.Offset
	LeaderEpoch     base.LeaderEpoch
	Err             error // a kerr error, or a *record.InvalidError; nil where appended
}

// Receipt is the promise of an append: order is fixed, durability comes when Done is closed.
type Receipt struct{}

// Done is closed when every partition's part is durable and committed as acks asked, or failed.
func (r *Receipt) Done() <-chan struct{} { panic("not built") }

// Results is valid after Done, in the order of the requests.
func (r *Receipt) Results() []AppendResult { panic("not built") }

// Append orders the batches of one produce request. acks is 0, 1 or -1 (checked by the caller); timeoutMs bounds acks=-1.
func (g *Ingest) Append(ctx context.Context, acks int16, timeoutMs int32, reqs []AppendRequest) *Receipt {
	panic("not built")
}

// DeleteRecords moves the log start offset up (to == -1: to the high watermark) and returns it: the new low watermark.
func (g *Ingest) DeleteRecords(ctx context.Context, tp base.TopicPartition, to base.Offset) (base.Offset, error) {
	panic("not built")
}

// EpochEnd answers OffsetForLeaderEpoch (KIP-101): facts/protocol.md 3.8. currentEpoch is checked where >= 0.
func (g *Ingest) EpochEnd(tp base.TopicPartition, currentEpoch, epoch base.LeaderEpoch) (base.LeaderEpoch, base.Offset, error) {
	panic("not built")
}

// Status is what describe commands show of a partition.
type Status struct {
	LeaderEpoch                                                      base.LeaderEpoch
	LogStart, HotStart, TieredEnd, LastStable, HighWatermark, LogEnd base.Offset
	HotBytes, TieredBytes, TieredObjects                             int64
}

// Status answers from memory. kerr errors: UnknownTopicOrPartition, NotLeaderForPartition.
func (g *Ingest) Status(tp base.TopicPartition) (Status, error) { panic("not built") }

// Batch is unused here; it keeps the import of record until the real code comes.
type Batch = record.Batch
