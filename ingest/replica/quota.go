package replica

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Unlimited is the rate of a quota that holds nobody back.
const Unlimited = math.MaxInt64

// Limit is the rate of a Quota and the span over which it is kept.
type Limit struct {
	BytesPerSecond int64
	Window         time.Duration // what is not used is kept for so long: replication.quota.window.size.seconds
	Windows        int           // debts of who is not held back are forgotten after so many: replication.quota.window.num
}

// Quota is one side of a broker's replication quota (KIP-73): a token bucket that holds what one window brings. Kafka measures a
// rate over up to Windows windows and asks whether it is exceeded; a bucket gives the same bytes without its bursts and pauses.
//
// The bucket's level is kept as the time up to which what was spent is paid for: it fills as time passes, and no timer is needed. It
// opens only when it holds a tenth of a window: many small reads would cost more than they move. All methods are safe for
// concurrent use; while there is no limit they cost an atomic load.
type Quota struct {
	limited atomic.Bool
	mu      struct {
		sync.Mutex
		limit   Limit
		paid    time.Time
		changed chan struct{}
	}
}

// NewQuota returns a quota without a limit.
func NewQuota() *Quota {
	q := &Quota{}
	q.mu.limit.BytesPerSecond = Unlimited
	q.mu.changed = make(chan struct{})
	return q
}

// Set changes the limit. The bucket is empty then, and debts are forgotten.
func (q *Quota) Set(l Limit, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l == q.mu.limit {
		return
	}
	q.mu.limit, q.mu.paid = l, now
	q.limited.Store(l.BytesPerSecond != Unlimited)
	q.wakeLocked()
}

// Wake makes who waits for the quota look again: which replicas it counts has changed.
func (q *Quota) Wake() {
	if q.Limited() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.wakeLocked()
	}
}

func (q *Quota) wakeLocked() {
	close(q.mu.changed)
	q.mu.changed = make(chan struct{})
}

// Limited reports whether there is a limit.
func (q *Quota) Limited() bool { return q.limited.Load() }

// Rate is the limit in bytes per second, Unlimited for none.
func (q *Quota) Rate() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.limit.BytesPerSecond
}

// Room is how much may be read now. Where that is 0 it may be tried again after wait, or when changed is closed.
func (q *Quota) Room(now time.Time) (bytes int64, wait time.Duration, changed <-chan struct{}) {
	if !q.Limited() {
		return Unlimited, 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l, idle := q.mu.limit, q.idleLocked(now)
	switch opens := l.Window / 10; {
	case l.BytesPerSecond == Unlimited:
		return Unlimited, 0, nil
	case l.BytesPerSecond == 0:
		return 0, math.MaxInt64, q.mu.changed
	case idle < opens:
		return 0, opens - idle, q.mu.changed
	}
	return max(1, int64(min(idle.Seconds()*float64(l.BytesPerSecond), math.MaxInt32))), 0, nil
}

// idleLocked is the time that nothing was spent for: the bucket's level. Negative is a debt.
func (q *Quota) idleLocked(now time.Time) time.Duration {
	return min(now.Sub(q.mu.paid), q.mu.limit.Window)
}

// Spend counts what was read. What asked for Room may have read more: a batch is never split. What could not be held back, since
// its replica is in sync, counts too, but leaves no debt of more than Windows windows: it may exceed the rate for ever.
func (q *Quota) Spend(bytes int64, asked bool, now time.Time) {
	if !q.Limited() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.mu.limit
	if l.BytesPerSecond == 0 || l.BytesPerSecond == Unlimited {
		return
	}
	before := now.Add(-q.idleLocked(now))
	q.mu.paid = before.Add(time.Duration(min(float64(bytes)/float64(l.BytesPerSecond)*float64(time.Second), math.MaxInt64/4)))
	if !asked {
		if most := latest(before, now.Add(time.Duration(l.Windows)*l.Window)); q.mu.paid.After(most) {
			q.mu.paid = most
		}
	}
}
