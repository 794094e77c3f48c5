package replica

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// heldBack is a follower's quota that holds one partition back until it is told otherwise.
type heldBack struct {
	partition int32
	opensAt   time.Time
	changed   chan struct{}
	open      atomic.Bool
}

func (h *heldBack) Closed(now time.Time) (time.Duration, <-chan struct{}) {
	if h.open.Load() {
		return 0, nil
	}
	return max(0, h.opensAt.Sub(now)), h.changed
}

func (h *heldBack) Holds(id ID) bool { return id.Partition == h.partition }

// What the quota holds back is not asked for, while others are, and comes back as soon as the quota opens: without a poll.
func TestFetcherLeavesOutWhatIsThrottled(t *testing.T) {
	l := &fakeLeader{answer: func(_ int, req *kmsg.FetchRequest, _ *kmsg.FetchResponse) (time.Duration, bool) {
		return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
	}}
	trace := runFetcher(t, l, &fakeLog{}, 900*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}}, Assignment{ID: id(1), Epoch: 3, Log: LogState{}})
	}, func(o *Options) {
		o.Throttle = &heldBack{partition: 1, opensAt: time.Now().Add(700 * time.Millisecond)}
	})
	compare(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1",
		"500ms fetch v17 by 2/9 session 77.1 wait 200:",
		"700ms fetch v17 by 2/9 session 77.2 wait 500: 1-1@e3 0 after e-1",
	)
}

// Where all is held back nothing is sent until the quota opens, or changes.
func TestFetcherWaitsForTheQuota(t *testing.T) {
	l := &fakeLeader{answer: func(_ int, req *kmsg.FetchRequest, _ *kmsg.FetchResponse) (time.Duration, bool) {
		return time.Duration(req.MaxWaitMillis) * time.Millisecond, false
	}}
	var h *heldBack
	trace := runFetcher(t, l, &fakeLog{}, 5*time.Second, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
		<-time.After(4800 * time.Millisecond)
		h.open.Store(true)
		close(h.changed)
	}, func(o *Options) {
		h = &heldBack{opensAt: time.Now().Add(24 * time.Hour), changed: make(chan struct{})}
		o.Throttle = h
	})
	compare(t, trace, "4800ms dial", "4800ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1")
}

// While the disk is full no records are taken, and few are asked for; log starts and high watermarks are. Then all goes on.
func TestFetcherTakesNoRecordsWhileFull(t *testing.T) {
	l := &fakeLeader{}
	l.answer = func(n int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		l.note("  at most %d bytes", req.MaxBytes)
		if n == 5 {
			return time.Hour, false
		}
		addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) {
			at := req.Topics[0].Partitions[0].FetchOffset
			p.RecordBatches, p.HighWatermark, p.LogStartOffset = batch(t, base.Offset(at), 3, 3), 6, int64(n-1)
		})
		return 100 * time.Millisecond, false
	}
	trace := runFetcher(t, l, &fakeLog{}, 5*time.Second, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
	}, func(o *Options) {
		began := time.Now()
		o.Full = func() bool {
			since := time.Since(began)
			return since > 150*time.Millisecond && since < 1800*time.Millisecond
		}
	})
	compare(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1", "0ms   at most 10485760 bytes",
		"100ms   apply 0: truncate false 0, 1 batches, hw 3", "100ms   applied",
		"100ms fetch v17 by 2/9 session 77.1 wait 500: 1-0@e3 3 after e3", "100ms   at most 10485760 bytes",
		"200ms   apply 0: truncate false 0, 0 batches, hw 3", "200ms   applied",
		"1200ms fetch v17 by 2/9 session 77.2 wait 500: 1-0@e3 3 after e3", "1200ms   at most 1 bytes",
		"1300ms   apply 0: truncate false 0, 0 batches, hw 3", "1300ms   applied",
		"2300ms fetch v17 by 2/9 session 77.3 wait 500: 1-0@e3 3 after e3", "2300ms   at most 10485760 bytes",
		"2400ms   apply 0: truncate false 0, 1 batches, hw 6", "2400ms   applied",
		"2400ms fetch v17 by 2/9 session 77.4 wait 500: 1-0@e3 6 after e3", "2400ms   at most 10485760 bytes",
	)
}

// Who has everything that is committed says so whatever the quota is: it may be about to join the ISR.
func TestFetcherAcknowledgesWhenLevel(t *testing.T) {
	h := &heldBack{}
	l := &fakeLeader{answer: func(_ int, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (time.Duration, bool) {
		if len(req.Topics) == 0 {
			return 0, false
		}
		at := req.Topics[0].Partitions[0].FetchOffset
		switch at {
		case 0:
			h.opensAt = time.Now().Add(400 * time.Millisecond)
		case 3:
			h.opensAt = time.Now().Add(24 * time.Hour)
		default:
			return time.Hour, false
		}
		addPartition(resp, 0, func(p *kmsg.FetchResponseTopicPartition) {
			p.RecordBatches, p.HighWatermark = batch(t, base.Offset(at), 3, 3), 6
		})
		return 0, false
	}}
	trace := runFetcher(t, l, &fakeLog{}, 900*time.Millisecond, func(f *Fetcher) {
		f.Follow(Assignment{ID: id(0), Epoch: 3, Log: LogState{}})
	}, func(o *Options) { o.Throttle = h })
	compare(t, trace,
		"0ms dial", "0ms fetch v17 by 2/9 session 0.0 wait 500: 1-0@e3 0 after e-1",
		"0ms   apply 0: truncate false 0, 1 batches, hw 3", "0ms   applied",
		"0ms fetch v17 by 2/9 session 77.1 wait 0: forget 1-[0]", // 3 of 6: held back
		"400ms fetch v17 by 2/9 session 77.2 wait 500: 1-0@e3 3 after e3",
		"400ms   apply 0: truncate false 0, 1 batches, hw 6", "400ms   applied",
		"400ms fetch v17 by 2/9 session 77.3 wait 500: 1-0@e3 6 after e3", // 6 of 6: the quota is closed, and this only says so
	)
}
