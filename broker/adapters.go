package broker

import (
	"context"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

// source shows ingest to tiering, which must not know it (style A.2).
type source struct{ in *ingest.Ingest }

func (s source) Sealed(maxBytes int64) []tiering.SealedRange {
	ranges := s.in.Sealed(maxBytes)
	out := make([]tiering.SealedRange, len(ranges))
	for i, r := range ranges {
		out[i] = tiering.SealedRange{
			Log: r.Log, TP: r.TP, TopicID: r.TopicID, Base: r.Base, End: r.End, Bytes: r.Bytes, MaxTimestamp: r.MaxTimestamp,
			LogStart: r.LogStart, LeaderEpoch: r.LeaderEpoch, Epochs: r.Epochs, Producers: r.Producers, SealedAtMs: r.SealedAtMs,
		}
	}
	return out
}

func (s source) SealedC() <-chan struct{} { return s.in.SealedC() }

func (s source) ReadSealed(ctx context.Context, r tiering.SealedRange, emit func(record.Batch) error) error {
	return s.in.ReadSealed(ctx, r.Log, r.Base, r.End, emit)
}

func (s source) Tiered(log base.LogID, _ base.LeaderEpoch, end base.Offset) { s.in.Tiered(log, end) }

// owner shows ingest to compaction (compaction.Owner).
type owner struct{ in *ingest.Ingest }

func (o owner) Standing(tp base.TopicPartition) (compaction.Standing, error) {
	s, err := o.in.Status(tp)
	return compaction.Standing{LogStart: s.LogStart, HighWatermark: s.HighWatermark, UntieredBytes: s.UntieredBytes}, err
}

func (o owner) AdvanceLogStart(ctx context.Context, log base.LogID, to base.Offset) error {
	return o.in.AdvanceLogStart(ctx, log, to)
}

// internalLog is an internal topic as the coordinators see it (coordinator.Log).
type internalLog struct {
	topic string
	in    *ingest.Ingest
	fetch *fetch.Service
}

func (l internalLog) Append(partition int32, b record.Batch, done func(base.Offset, error)) {
	l.in.AppendBatch(base.TopicPartition{Topic: l.topic, Partition: partition}, b, done)
}

func (l internalLog) Replay(ctx context.Context, partition int32, emit func(record.Batch) error) error {
	return l.fetch.Scan(ctx, base.TopicPartition{Topic: l.topic, Partition: partition}, emit)
}
