package compaction

import (
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// Segment is what retention needs to know of one tiered segment.
type Segment struct {
	End          base.Offset
	Bytes        int64
	MaxTimestamp int64 // milliseconds, negative for none
}

// Retention is one partition as the planner sees it.
type Retention struct {
	Config        *metadata.TopicConfig
	NowMs         int64
	LogStart      base.Offset // of the log's owner; segments below it go whatever the configuration says
	HighWatermark base.Offset
	TieredBytes   int64 // of Segments
	UntieredBytes int64 // hot bytes that no segment holds: they count for retention.bytes
	// Segments yields the tiered segments, oldest first, until yield returns false.
	Segments func(yield func(Segment) bool) error
}

// Plan returns the log start offset that Kafka's rules ask for, at least LogStart: UnifiedLog deletes the oldest segments
// while they are older than retention.ms, by their largest timestamp, and then while the log without them still has
// retention.bytes. A topic whose cleanup.policy is compact alone has neither. Only whole segments go, and nothing at or
// above the high watermark.
func (r *Retention) Plan() (base.Offset, error) {
	to := r.LogStart
	if !r.Config.Delete {
		return to, nil
	}
	excess := r.TieredBytes + r.UntieredBytes - r.Config.RetentionBytes
	aging := r.Config.RetentionMs >= 0
	err := r.Segments(func(s Segment) bool {
		aging = aging && s.MaxTimestamp >= 0 && r.NowMs-s.MaxTimestamp > r.Config.RetentionMs
		large := r.Config.RetentionBytes >= 0 && excess >= s.Bytes
		if s.End > r.LogStart && !aging && !large || s.End > r.HighWatermark {
			return false
		}
		excess -= s.Bytes
		to = max(to, s.End)
		return true
	})
	if err != nil {
		return r.LogStart, err
	}
	return to, nil
}
