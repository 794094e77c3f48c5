package runtime

import (
	"container/heap"
	"time"
)

// timers is the timer queue of one shard: a heap by due time and an index by key. It holds no goroutine and no clock;
// the shard keeps one clock timer for the earliest entry.
type timers struct {
	heap  timerHeap
	byKey map[TimerKey]*timer
	seq   uint64
}

type timer struct {
	key   TimerKey
	at    time.Time
	seq   uint64 // order among equal times: first set, first fired
	fire  func(*Effects)
	index int
}

func newTimers() *timers { return &timers{byKey: map[TimerKey]*timer{}} }

// apply carries out one operation that was decided at now.
func (t *timers) apply(op TimerOp, now time.Time) {
	old := t.byKey[op.Key]
	if op.Fire == nil {
		if old != nil {
			heap.Remove(&t.heap, old.index)
			delete(t.byKey, op.Key)
		}
		return
	}
	t.seq++
	at := now.Add(op.After)
	if old != nil {
		old.at, old.seq, old.fire = at, t.seq, op.Fire
		heap.Fix(&t.heap, old.index)
		return
	}
	e := &timer{key: op.Key, at: at, seq: t.seq, fire: op.Fire}
	t.byKey[op.Key] = e
	heap.Push(&t.heap, e)
}

func (t *timers) len() int { return len(t.heap) }

// next reports when the earliest timer is due.
func (t *timers) next() (time.Time, bool) {
	if len(t.heap) == 0 {
		return time.Time{}, false
	}
	return t.heap[0].at, true
}

// due removes and returns the earliest timer if its time has come.
func (t *timers) due(now time.Time) *timer {
	if len(t.heap) == 0 || t.heap[0].at.After(now) {
		return nil
	}
	e := heap.Pop(&t.heap).(*timer)
	delete(t.byKey, e.key)
	return e
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].seq < h[j].seq
	}
	return h[i].at.Before(h[j].at)
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	e := x.(*timer)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *timerHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
