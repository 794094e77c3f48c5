package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
)

// The special timestamps of ListOffsets.
const (
	TimestampLatest                = -1
	TimestampEarliest              = -2
	TimestampMax                   = -3 // KIP-734
	TimestampEarliestLocal         = -4 // KIP-405
	TimestampLatestTiered          = -5 // KIP-1005
	TimestampEarliestPendingUpload = -6 // KIP-1023
)

// OffsetResult is a found offset; all fields are -1 where nothing was found.
type OffsetResult struct {
	Offset      base.Offset
	Timestamp   int64 // ms; -1 for the special timestamps other than TimestampMax
	LeaderEpoch base.LeaderEpoch
}

// ListOffset answers one partition of ListOffsets: a special timestamp or a time in ms.
func (s *Service) ListOffset(ctx context.Context, tp base.TopicPartition, currentEpoch base.LeaderEpoch, timestamp int64, readCommitted bool) (OffsetResult, error) {
	none := OffsetResult{Offset: base.NoOffset, Timestamp: -1, LeaderEpoch: base.NoLeaderEpoch}
	p, err := s.opts.Ingest.Partition(tp)
	if err != nil {
		return none, err
	}
	if err := p.CheckEpoch(currentEpoch); err != nil {
		return none, err
	}
	v, err := p.View()
	if err != nil {
		return none, err
	}
	upTo := v.HighWatermark
	if readCommitted {
		upTo = v.LastStable
	}
	at := func(off base.Offset) (OffsetResult, error) {
		return OffsetResult{Offset: off, Timestamp: -1, LeaderEpoch: p.EpochAt(off)}, nil
	}
	if timestamp == TimestampLatest && !v.Readable { // KIP-207
		return none, fmt.Errorf("list offsets of %s: a new leader does not know its high watermark yet: %w", tp, kerr.OffsetNotAvailable)
	}
	switch timestamp {
	case TimestampLatest:
		return OffsetResult{Offset: upTo, Timestamp: -1, LeaderEpoch: v.Epoch}, nil
	case TimestampEarliest:
		return at(v.LogStart)
	case TimestampEarliestLocal:
		return at(max(v.HotStart, v.LogStart))
	case TimestampLatestTiered:
		if v.TieredEnd <= v.LogStart || !p.Config().RemoteStorageEnable {
			return none, nil
		}
		return at(v.TieredEnd - 1)
	case TimestampEarliestPendingUpload:
		if !p.Config().RemoteStorageEnable { // as Kafka 4.3 answers
			return none, nil
		}
		return at(max(v.TieredEnd, v.LogStart))
	}
	if timestamp < 0 && timestamp != TimestampMax {
		return none, fmt.Errorf("list offsets of %s: timestamp %d: %w", tp, timestamp, kerr.InvalidRequest)
	}
	f, ok, err := s.find(ctx, p, v, timestamp, upTo)
	for tries := 0; errors.Is(err, kerr.OffsetOutOfRange) && tries < 3; tries++ {
		// Trimmed while the hot tier was searched: what went is in the cold tier by now (I5).
		if v, err = p.View(); err == nil {
			f, ok, err = s.find(ctx, p, v, timestamp, upTo)
		}
	}
	if err != nil || !ok {
		return none, err
	}
	return OffsetResult{Offset: f.Offset, Timestamp: f.Timestamp, LeaderEpoch: p.EpochAt(f.Offset)}, nil
}

// find looks a time (or the largest timestamp) up over both tiers.
func (s *Service) find(ctx context.Context, p *ingest.Partition, v ingest.View, timestamp int64, upTo base.Offset) (ingest.Found, bool, error) {
	if timestamp == TimestampMax {
		return s.findMax(ctx, p, v, upTo)
	}
	if v.LogStart < min(v.TieredEnd, v.HotStart) {
		var off base.Offset
		var ts int64
		var ok bool
		err := s.coldLookup(ctx, p.Log(), func(ctx context.Context) (err error) {
			off, ts, ok, err = s.opts.Cold.OffsetForTime(ctx, p.Log(), timestamp, v.LogStart)
			return err
		})
		if err != nil {
			return ingest.Found{}, false, fmt.Errorf("look up time in the cold tier: %w", err)
		}
		if ok {
			return ingest.Found{Offset: off, Timestamp: ts}, off < upTo, nil
		}
	}
	return p.FindTime(timestamp, max(v.LogStart, v.HotStart), upTo)
}

func (s *Service) findMax(ctx context.Context, p *ingest.Partition, v ingest.View, upTo base.Offset) (ingest.Found, bool, error) {
	f, ok, err := p.MaxTimestamp(max(v.LogStart, v.HotStart), upTo)
	if err != nil || v.LogStart >= min(v.TieredEnd, v.HotStart) {
		return f, ok, err
	}
	var off base.Offset
	var ts int64
	var cold bool
	err = s.coldLookup(ctx, p.Log(), func(ctx context.Context) (err error) {
		off, ts, cold, err = s.opts.Cold.MaxTimestamp(ctx, p.Log())
		return err
	})
	if err != nil {
		return f, ok, fmt.Errorf("look up the largest timestamp in the cold tier: %w", err)
	}
	if cold && (!ok || ts >= f.Timestamp) {
		return ingest.Found{Offset: off, Timestamp: ts}, true, nil
	}
	return f, ok, nil
}

// coldLookup runs a look-up by time in the cold tier under the budget of those (I12), for at most Options.ColdLookupWait.
func (s *Service) coldLookup(ctx context.Context, log base.LogID, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ColdLookupWait)
	defer cancel()
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.coldError(log, look(ctx))
}
