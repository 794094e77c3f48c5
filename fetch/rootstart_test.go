package fetch_test

import (
	"math"
	"testing"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/record"
)

// A leader whose log starts before its manifest, as one that was elected before it had heard of a new log start, would send consumers to
// an earliest offset that it answers OFFSET_OUT_OF_RANGE, for ever; a coordinator could not replay its log.
func TestEarliestOfALeaderBehindItsManifest(t *testing.T) {
	r := newRig(t, 1, fetch.Options{})
	tp := r.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"})
	m := &model{}
	for range 200 {
		r.put(tp, m, 10, record.CodecNone)
	}
	r.tier(tp)
	state, _ := r.meta.Image().Partition(tp)
	start := r.status(tp).HotStart / 2
	r.check(r.tiering.DropBelow(t.Context(), state.Log, start))
	root, _, err := r.meta.Root(t.Context(), state.Log)
	r.check(err)
	r.in.OnRoot(root)
	o, err := r.svc.ListOffset(t.Context(), tp, -1, fetch.TimestampEarliest, false)
	r.check(err)
	if res := r.one(tp, o.Offset, math.MaxInt32); o.Offset != start || res.Err != nil || len(res.Batches) == 0 {
		t.Errorf("earliest %d, want %d; a fetch there: %d batches, %v", o.Offset, start, len(res.Batches), res.Err)
	}
	r.check(r.svc.Scan(t.Context(), tp, func(record.Batch) error { return nil }))
}
