package fetch

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
)

// source is where a partition's bytes come from.
type source int8

const (
	sourceNone source = iota // nothing to read: an error, or the offset is at the end
	sourceHot
	sourceCold
)

// plan is what Fetch does for one partition.
type plan struct {
	from      source
	upTo      base.Offset // exclusive bound of what may be returned
	err       error
	diverging *base.EpochStart
}

// epochEnd answers where a leader epoch ended (KIP-101).
type epochEnd func(base.LeaderEpoch) (base.LeaderEpoch, base.Offset)

// planPartition decides from one look at a partition (facts/protocol.md 3.5, 3.8).
func planPartition(v ingest.View, r *PartitionRequest, readCommitted bool, end epochEnd) plan {
	if r.LastFetchedEpoch >= 0 {
		e, off := end(r.LastFetchedEpoch)
		switch {
		case e < 0:
			return plan{err: fmt.Errorf("last fetched epoch %d: %w", r.LastFetchedEpoch, kerr.OffsetOutOfRange)}
		case e < r.LastFetchedEpoch || off < r.Offset:
			return plan{diverging: &base.EpochStart{Epoch: e, Start: off}}
		}
	}
	if r.Offset < v.LogStart || r.Offset > v.LogEnd {
		return plan{err: fmt.Errorf("offset %d, log [%d, %d): %w", r.Offset, v.LogStart, v.LogEnd, kerr.OffsetOutOfRange)}
	}
	p := plan{upTo: v.HighWatermark}
	if readCommitted {
		p.upTo = v.LastStable
	}
	switch {
	case r.Offset >= p.upTo:
	case r.Offset >= v.Served:
		p.from = sourceHot
	default:
		p.from = sourceCold
		p.upTo = min(p.upTo, v.TieredEnd)
	}
	return p
}
