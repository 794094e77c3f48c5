// Package fetch is the read path: hot or cold, waiting, sessions.
package fetch

import (
	"context"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Service reads partitions of this broker over both tiers.
type Service struct{}

// PartitionRequest is one partition of a Fetch.
type PartitionRequest struct {
	TP               base.TopicPartition
	TopicID          base.TopicID // not zero (v13+): must match the topic's current id, else kerr.UnknownTopicID
	Offset           base.Offset
	MaxBytes         int32
	CurrentEpoch     base.LeaderEpoch // -1: unknown
	LastFetchedEpoch base.LeaderEpoch // -1: unknown
	Err              error            // already decided by the caller (an unknown topic id of a session)
}

// Request is a Fetch of full partitions (sessions are resolved before).
type Request struct {
	MaxWaitMs     int32
	MinBytes      int32
	MaxBytes      int32
	ReadCommitted bool
	NoZstd        bool // Fetch < 10: a zstd batch gives kerr.UnsupportedCompressionType
	Partitions    []PartitionRequest
}

// PartitionResponse answers one PartitionRequest.
type PartitionResponse struct {
	Err           error
	HighWatermark base.Offset // -1 with an error
	LastStable    base.Offset
	LogStart      base.Offset
	Batches       []record.Batch // share memory with the tail or the cache: not to be modified
	Bytes         int
	Diverging     *base.EpochStart // KIP-595: epoch and end offset
	Aborted       []AbortedTxn     // for ReadCommitted never nil
}

// AbortedTxn is an entry of a read-committed answer.
type AbortedTxn struct {
	ProducerID  base.ProducerID
	FirstOffset base.Offset
}

// Fetch answers in the order of the request's partitions; it waits as DelayedFetch does (facts/protocol.md 3.5) and blocks
// the caller meanwhile.
func (s *Service) Fetch(ctx context.Context, r *Request) []PartitionResponse { panic("not built") }

// ListOffset answers one partition of ListOffsets: the special timestamps -1..-6 or a time in ms.
func (s *Service) ListOffset(ctx context.Context, tp base.TopicPartition, currentEpoch base.LeaderEpoch, timestamp int64, readCommitted bool) (OffsetResult, error) {
	panic("not built")
}

// OffsetResult is a found offset; Offset and Timestamp are -1 where nothing was found.
type OffsetResult struct {
	Offset      base.Offset
	Timestamp   int64
	LeaderEpoch base.LeaderEpoch
}
