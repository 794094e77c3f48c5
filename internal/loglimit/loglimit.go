// Package loglimit bounds the log lines that clients can cause by asking again; metrics count what it keeps back.
package loglimit

import (
	"sync"
	"time"
)

// Limit lets PerSecond lines through in each second of the clock. It is safe for concurrent use.
type Limit struct {
	PerSecond int
	mu        struct {
		sync.Mutex
		second int64
		lines  int
	}
}

// Allow reports whether another line may be written now.
func (l *Limit) Allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.mu.second {
		l.mu.second, l.mu.lines = s, 0
	}
	l.mu.lines++
	return l.mu.lines <= l.PerSecond
}
