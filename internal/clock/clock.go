// Package clock is the time seam: components take a Clock and never call time.Now themselves.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time and wakes callers.
type Clock interface {
	Now() time.Time
	// NewTimer fires once on C after d.
	NewTimer(d time.Duration) *Timer
}

// Timer fires once on C.
type Timer struct {
	C    <-chan time.Time
	stop func() bool
}

// TimerOn returns a timer that fires on c and that stop ends: for clocks of other packages.
func TimerOn(c <-chan time.Time, stop func() bool) *Timer { return &Timer{C: c, stop: stop} }

// Stop prevents the timer from firing; it reports whether it did.
func (t *Timer) Stop() bool { return t.stop() }

// Real is the machine's clock (and, inside a testing/synctest bubble, the bubble's).
type Real struct{}

// Now implements Clock.
func (Real) Now() time.Time { return time.Now() }

// NewTimer implements Clock.
func (Real) NewTimer(d time.Duration) *Timer {
	t := time.NewTimer(d)
	return &Timer{C: t.C, stop: t.Stop}
}

// Manual is a clock that moves only when Advance is called.
type Manual struct {
	mu struct {
		sync.Mutex
		now    time.Time
		timers map[*manualTimer]struct{}
	}
}

type manualTimer struct {
	at time.Time
	c  chan time.Time
}

// NewManual returns a clock that stands at now.
func NewManual(now time.Time) *Manual {
	m := &Manual{}
	m.mu.now = now
	m.mu.timers = map[*manualTimer]struct{}{}
	return m
}

// Now implements Clock.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.now
}

// NewTimer implements Clock.
func (m *Manual) NewTimer(d time.Duration) *Timer {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &manualTimer{at: m.mu.now.Add(d), c: make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- m.mu.now
	} else {
		m.mu.timers[t] = struct{}{}
	}
	return &Timer{C: t.c, stop: func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		_, live := m.mu.timers[t]
		delete(m.mu.timers, t)
		return live
	}}
}

// Advance moves the clock and fires what is due.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now = m.mu.now.Add(d)
	for t := range m.mu.timers {
		if !t.at.After(m.mu.now) {
			t.c <- m.mu.now
			delete(m.mu.timers, t)
		}
	}
}
