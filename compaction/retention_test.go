package compaction_test

import (
	"testing"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// TestRetentionPlan is Kafka's UnifiedLogTest on retention, and what two tiers add. Five segments of 100 bytes end at 10,
// 20, ... 50 with timestamps 1000, 2000, ... 5000.
func TestRetentionPlan(t *testing.T) {
	type in struct {
		ms, bytes       int64
		now             int64
		start, hw       base.Offset
		untiered        int64
		compact, noTime bool
	}
	f := func(name string, c in, want base.Offset) {
		t.Helper()
		cfg := &metadata.TopicConfig{Delete: !c.compact, Compact: c.compact, RetentionMs: c.ms, RetentionBytes: c.bytes}
		r := compaction.Retention{Config: cfg, NowMs: c.now, LogStart: c.start, HighWatermark: c.hw, TieredBytes: 500, UntieredBytes: c.untiered}
		r.Segments = func(yield func(compaction.Segment) bool) error {
			for i := range int64(5) {
				s := compaction.Segment{End: base.Offset(10 * (i + 1)), Bytes: 100, MaxTimestamp: 1000 * (i + 1)}
				if c.noTime {
					s.MaxTimestamp = -1
				}
				if !yield(s) {
					break
				}
			}
			return nil
		}
		got, err := r.Plan()
		if err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", name, got, err, want)
		}
	}
	f("no limits", in{ms: -1, bytes: -1, now: 1e9, hw: 60}, 0)
	f("by time: strictly older", in{ms: 1000, bytes: -1, now: 3000, hw: 60}, 10)
	f("by time: one more", in{ms: 1000, bytes: -1, now: 3001, hw: 60}, 20)
	f("by time: everything tiered", in{ms: 0, bytes: -1, now: 1e9, hw: 60}, 50)
	f("without timestamps nothing ages", in{ms: 0, bytes: -1, now: 1e9, hw: 60, noTime: true}, 0)
	f("by size: exactly full", in{ms: -1, bytes: 500, hw: 60}, 0)
	f("by size: what stays has at least the limit", in{ms: -1, bytes: 301, hw: 60}, 10)
	f("by size: whole segments", in{ms: -1, bytes: 300, hw: 60}, 20)
	f("by size: hot bytes count", in{ms: -1, bytes: 300, untiered: 150, hw: 60}, 30)
	f("by size: zero", in{ms: -1, bytes: 0, untiered: 1, hw: 60}, 50)
	f("time first, then the rest by size", in{ms: 1000, bytes: 300, now: 2500, hw: 60}, 20)
	f("compact alone has neither", in{ms: 0, bytes: 0, now: 1e9, hw: 60, compact: true}, 0)
	f("log start of the owner counts as the least", in{ms: -1, bytes: -1, start: 33, hw: 60}, 33)
	f("behind the log start by size", in{ms: -1, bytes: 250, start: 15, hw: 60}, 20)
	f("never past the high watermark", in{ms: 0, bytes: 0, now: 1e9, hw: 25}, 20)
	f("the log start is never moved back", in{ms: -1, bytes: 450, start: 50, hw: 50}, 50)
}
