package replica

import (
	"testing"
	"time"
)

// oneMBps is a limit as kafka-reassign-partitions --throttle sets one, with Kafka's windows.
var oneMBps = Limit{BytesPerSecond: 1_000_000, Window: time.Second, Windows: 11}

// room checks what a quota has room for, and how long it is closed.
func room(t *testing.T, q *Quota, now time.Time, wantBytes int64, wantWait time.Duration) {
	t.Helper()
	if bytes, wait, _ := q.Room(now); bytes != wantBytes || wait != wantWait {
		t.Errorf("room for %d bytes in %v, want %d in %v", bytes, wait, wantBytes, wantWait)
	}
}

func TestQuotaFills(t *testing.T) {
	q, now := NewQuota(), start
	room(t, q, now, Unlimited, 0)
	q.Set(oneMBps, now)
	room(t, q, now, 0, 100*time.Millisecond)
	now = now.Add(100 * time.Millisecond)
	room(t, q, now, 100_000, 0)
	now = now.Add(time.Hour)
	room(t, q, now, 1_000_000, 0) // one window, whatever was left unused before
	q.Spend(1_000_000, true, now)
	room(t, q, now, 0, 100*time.Millisecond)
	q.Spend(3_000_000, true, now)
	room(t, q, now, 0, 3100*time.Millisecond)
	q.Set(oneMBps, now) // no change
	room(t, q, now, 0, 3100*time.Millisecond)
	q.Set(Limit{BytesPerSecond: Unlimited}, now)
	room(t, q, now, Unlimited, 0)
	q.Set(oneMBps, now) // debts are not remembered
	room(t, q, now, 0, 100*time.Millisecond)
}

// Over any time no more passes than the rate, one window and the last read.
func TestQuotaHoldsItsRate(t *testing.T) {
	q, now, passed := NewQuota(), start.Add(time.Minute), int64(0)
	q.Set(oneMBps, start)
	const last = 300_000
	for end := now.Add(20 * time.Second); now.Before(end); {
		bytes, wait, _ := q.Room(now)
		if now = now.Add(wait); bytes > 0 {
			q.Spend(last, true, now)
			passed += last
		}
		now = now.Add(time.Millisecond)
	}
	if passed > 21_000_000+last || passed < 19_000_000 {
		t.Errorf("%d bytes in 20 s at 1 MB/s", passed)
	}
}

// What in-sync replicas take counts, but not for longer than Kafka's windows: a leader may be written to faster than its quota for days.
func TestQuotaForgetsInSyncReplicas(t *testing.T) {
	q, now := NewQuota(), start
	q.Set(oneMBps, now)
	for range 100 {
		q.Spend(1_000_000, false, now)
	}
	room(t, q, now, 0, 11*time.Second+100*time.Millisecond)
	q.Spend(20_000_000, true, now) // but what was asked for is never forgotten
	room(t, q, now, 0, 31*time.Second+100*time.Millisecond)
	q.Spend(1_000_000, false, now)
	room(t, q, now, 0, 31*time.Second+100*time.Millisecond)
}

func TestQuotaWakes(t *testing.T) {
	q := NewQuota()
	woken := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	nothing := oneMBps
	nothing.BytesPerSecond = 0
	for name, change := range map[string]func(){
		"another rate":   func() { q.Set(oneMBps, start) },
		"none":           func() { q.Set(Limit{BytesPerSecond: Unlimited}, start) },
		"other replicas": func() { q.Wake() },
	} {
		q.Set(nothing, start)
		q.Spend(1, true, start)
		_, wait, changed := q.Room(start.Add(time.Hour))
		if wait < 24*time.Hour || woken(changed) {
			t.Errorf("%s: a quota of nothing opens after %v", name, wait)
		}
		if change(); !woken(changed) {
			t.Errorf("%s: nobody is woken", name)
		}
	}
}
