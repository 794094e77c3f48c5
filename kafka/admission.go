package kafka

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvelog/varve/internal/clock"
)

const (
	// admissionGrace is how long a body may take before it can be evicted for others that wait.
	admissionGrace = 250 * time.Millisecond
	// admissionRate is the rate, in bytes per second, below which a body that is being read is evicted while others wait.
	admissionRate = 64 << 10
)

// admission is a budget of bytes that requests take before their bodies are read. Waiters are served first come, first
// served, so that a large request is not starved by small ones. While somebody waits, whoever holds bytes for a body that
// does not arrive is evicted: a slow or malicious sender cannot hold the budget.
type admission struct {
	clock clock.Clock
	limit int64
	mu    struct {
		sync.Mutex
		used    int64
		waiters []*admissionWaiter
		reading map[*hold]struct{} // holds whose body is not complete
	}
}

type admissionWaiter struct {
	bytes int64
	ready chan struct{} // closed when the bytes were granted
}

// hold is a granted part of the budget. Its owner calls arrived once and release once.
type hold struct {
	a     *admission
	bytes int64
	since time.Time
	got   atomic.Int64 // bytes of the body so far
	evict func()       // closes the connection; must not block
}

func newAdmission(c clock.Clock, limit int64) *admission {
	a := &admission{clock: c, limit: max(limit, 1)}
	a.mu.reading = map[*hold]struct{}{}
	return a
}

// acquire waits until bytes are granted or ctx ends. More than the whole budget is treated as the whole budget: such a
// request runs alone.
func (a *admission) acquire(ctx context.Context, bytes int64, evict func()) (*hold, error) {
	bytes = min(bytes, a.limit)
	if h := a.take(bytes, evict); h != nil {
		return h, nil
	}
	w := &admissionWaiter{bytes: bytes, ready: make(chan struct{})}
	a.mu.Lock()
	a.mu.waiters = append(a.mu.waiters, w)
	a.grantLocked()
	a.mu.Unlock()
	for {
		timer := a.clock.NewTimer(admissionGrace)
		select {
		case <-w.ready:
			timer.Stop()
			return a.register(bytes, evict), nil
		case <-ctx.Done():
			timer.Stop()
			a.abandon(w)
			return nil, ctx.Err()
		case <-timer.C:
			a.evictStalled()
		}
	}
}

// take grants at once or returns nil.
func (a *admission) take(bytes int64, evict func()) *hold {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.mu.waiters) > 0 || a.mu.used+bytes > a.limit {
		return nil
	}
	a.mu.used += bytes
	h := &hold{a: a, bytes: bytes, since: a.clock.Now(), evict: evict}
	if evict != nil {
		a.mu.reading[h] = struct{}{}
	}
	return h
}

func (a *admission) register(bytes int64, evict func()) *hold {
	h := &hold{a: a, bytes: bytes, since: a.clock.Now(), evict: evict}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.reading[h] = struct{}{}
	return h
}

// abandon takes a waiter out of the queue, or gives back what it was granted meanwhile.
func (a *admission) abandon(w *admissionWaiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-w.ready:
		a.mu.used -= w.bytes
	default:
		for i, x := range a.mu.waiters {
			if x == w {
				a.mu.waiters = append(a.mu.waiters[:i], a.mu.waiters[i+1:]...)
				break
			}
		}
	}
	a.grantLocked()
}

func (a *admission) grantLocked() {
	for len(a.mu.waiters) > 0 && a.mu.used+a.mu.waiters[0].bytes <= a.limit {
		w := a.mu.waiters[0]
		a.mu.waiters = a.mu.waiters[1:]
		a.mu.used += w.bytes
		close(w.ready)
	}
}

// evictStalled ends the connections whose bodies arrive more slowly than admissionRate.
func (a *admission) evictStalled() {
	var stalled []*hold
	now := a.clock.Now()
	a.mu.Lock()
	for h := range a.mu.reading {
		age := now.Sub(h.since)
		if age > admissionGrace && h.got.Load() < int64((age-admissionGrace).Seconds()*admissionRate) {
			stalled = append(stalled, h)
		}
	}
	a.mu.Unlock()
	for _, h := range stalled {
		h.evict()
	}
}

// inUse is the number of granted bytes.
func (a *admission) inUse() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.used
}

// arrived says that the body is complete; its owner is no longer evicted.
func (h *hold) arrived() {
	h.a.mu.Lock()
	defer h.a.mu.Unlock()
	delete(h.a.mu.reading, h)
}

// resize sets what the request turned out to need. More than was granted is taken without waiting: who holds something
// must not wait for more. It is little, and the next ones wait for it.
func (h *hold) resize(bytes int64) {
	h.a.mu.Lock()
	defer h.a.mu.Unlock()
	h.a.mu.used += bytes - h.bytes
	h.bytes = bytes
	h.a.grantLocked()
}

// release gives everything back. It may be called more than once.
func (h *hold) release() {
	h.a.mu.Lock()
	defer h.a.mu.Unlock()
	delete(h.a.mu.reading, h)
	h.a.mu.used -= h.bytes
	h.bytes = 0
	h.a.grantLocked()
}

// lanes are the admissions of requests by what they reserve, so that requests of a kind wait for their kind only: a group's
// heartbeat never waits behind megabytes of Produce, and an ordinary Produce never behind the largest that the protocol allows.
type lanes struct{ small, medium, large *admission }

const (
	smallLane  = 64 << 10 // largest reservation of the small lane, bytes
	mediumLane = 4 << 20  // of the medium lane
)

// newLanes gives an eighth of the budget to small requests, a half to medium ones and the rest to large ones.
func newLanes(c clock.Clock, limit int64) lanes {
	return lanes{newAdmission(c, limit/8), newAdmission(c, limit/2), newAdmission(c, limit-limit/2-limit/8)}
}

func (l lanes) of(bytes int64) *admission {
	switch {
	case bytes <= smallLane:
		return l.small
	case bytes <= mediumLane:
		return l.medium
	default:
		return l.large
	}
}

func (l lanes) inUse() int64 { return l.small.inUse() + l.medium.inUse() + l.large.inUse() }
func (l lanes) limit() int64 { return l.small.limit + l.medium.limit + l.large.limit }

// requestMemory is the budget of request bodies: lanes for requests that may wait for other brokers, for the bucket or for etcd,
// and lanes for those that never do.
//
// An acks=all Produce, or an OffsetCommit, keeps its memory until the high watermark has passed it, and what moves the high
// watermark is a follower's Fetch; what keeps a follower in the cluster is its heartbeat. If these had to wait for the memory of
// the former, all would wait for each other until a time-out. In the prompt lanes they cannot: a request is admitted there only
// if its route is prompt and every earlier request of its connection has left its handler. So whoever has memory of the prompt
// lanes is being read (and evicted where it stalls), runs a handler that waits for none of this, or is being written to
// its client under a deadline. Fetch does wait, but with the memory of parked requests; where that is full it does not poll, and an
// answer of the bucket or etcd, which need no memory of this budget, is all that it may have to wait for.
//
// Whether a Fetch is a follower's is known once it is read: so those of consumers are admitted here too.
type requestMemory struct{ prompt, patient lanes }

// newRequestMemory gives an eighth of limit to the prompt lanes: what goes there is small, and soon gone.
func newRequestMemory(c clock.Clock, limit int64) requestMemory {
	return requestMemory{prompt: newLanes(c, limit/8), patient: newLanes(c, limit-limit/8)}
}

func (m *requestMemory) of(prompt bool, bytes int64) *admission {
	if prompt {
		return m.prompt.of(bytes)
	}
	return m.patient.of(bytes)
}

func (m *requestMemory) inUse() int64 { return m.prompt.inUse() + m.patient.inUse() }
func (m *requestMemory) limit() int64 { return m.prompt.limit() + m.patient.limit() }

// fetchMemory counts bytes that are being read for a Fetch, and those that were, until they are written to their client. It never
// blocks: the fuller it is, the less the next Fetch may read, down to one batch. So what passes the limit is a batch per Fetch at most.
type fetchMemory struct {
	limit int64
	used  atomic.Int64
}

// room is how many bytes a Fetch that asks for want may read while others use so much. Half of what is free at most: the next one
// is to have room, too.
func (f *fetchMemory) room(used, want int64) int64 {
	return min(want, max((f.limit-used)/2, 0))
}

// fetchHold is what one Fetch has of the fetch memory; it is the request's fetch.Memory. It is used by one goroutine at a time.
type fetchHold struct {
	memory *fetchMemory
	bytes  int64
}

// Reserve takes room for bytes, or for as many as there is, in place of what is held.
func (h *fetchHold) Reserve(bytes int) int {
	for {
		used := h.memory.used.Load()
		others := used - h.bytes
		n := h.memory.room(others, int64(bytes))
		if h.memory.used.CompareAndSwap(used, others+n) {
			h.bytes = n
			return int(n)
		}
	}
}

// Keep holds bytes from now on, be they more than were reserved.
func (h *fetchHold) Keep(bytes int) {
	if n := int64(bytes) - h.bytes; n != 0 {
		h.memory.used.Add(n)
		h.bytes += n
	}
}
