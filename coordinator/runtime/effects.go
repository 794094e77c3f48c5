package runtime

import (
	"time"

	"github.com/varvelog/varve/record"
)

// Effects collects what one step of a Machine wants done: records to append, answers to give, timers to set. The machine
// fills it, the shard carries it out after the step. It belongs to the shard's goroutine and to one step.
type Effects struct {
	// Now is the time of the step. A machine takes the time from here only, so that a step is a function of its input.
	Now time.Time

	records []record.Record
	bytes   int
	undo    []func()
	settled []func(*Effects, error)
	parked  []Answer
	now     []Answer
	timers  []TimerOp
	split   bool
}

// Answer is a response for the caller that holds the promise.
type Answer struct {
	Promise *Promise
	Value   any
}

// TimerKey names a timer within a shard. Setting a timer replaces the one of the same key.
type TimerKey struct{ Kind, Group, Member string }

// TimerOp sets a timer, or cancels it where Fire is nil.
type TimerOp struct {
	Key   TimerKey
	After time.Duration
	Fire  func(*Effects)
}

// Append adds a record; a nil value is a tombstone. The records of one step are committed together, in one batch, or
// not at all, unless the step called Split. The machine has applied the record to its state when it calls Append, so
// that the next step sees it.
func (fx *Effects) Append(key, value []byte) {
	fx.records = append(fx.records, record.Record{Timestamp: fx.Now.UnixMilli(), Key: key, Value: value})
	fx.bytes += len(key) + len(value) + recordOverheadBytes
}

// Split allows the records of this step to be spread over several batches: for cleaning up, where each record stands for
// itself and there may be more of them than fit one batch.
func (fx *Effects) Split() { fx.split = true }

// OnUndo registers how to take the step's change of replicated state back. When records cannot be committed, the undo
// functions of their step and of every later step run in reverse order.
func (fx *Effects) OnUndo(f func()) { fx.undo = append(fx.undo, f) }

// OnSettled registers what follows once the step's records are committed (nil) or lost (the log's error; undo functions
// have run by then). Without records it runs right after the step.
func (fx *Effects) OnSettled(f func(*Effects, error)) { fx.settled = append(fx.settled, f) }

// Reply answers p once this step's records, and all that were appended before, are committed. Where they are lost, the
// caller gets the log's error instead.
func (fx *Effects) Reply(p *Promise, v any) { fx.parked = append(fx.parked, Answer{p, v}) }

// ReplyNow answers p at the end of the step, whatever is still in flight: only for answers that rest on no
// uncommitted record.
func (fx *Effects) ReplyNow(p *Promise, v any) { fx.now = append(fx.now, Answer{p, v}) }

// SetTimer arranges for fire to be called as a step of its own after the given time, in place of an earlier timer of
// the same key.
func (fx *Effects) SetTimer(k TimerKey, after time.Duration, fire func(*Effects)) {
	fx.timers = append(fx.timers, TimerOp{Key: k, After: after, Fire: fire})
}

// CancelTimer forgets the timer of the key, if there is one.
func (fx *Effects) CancelTimer(k TimerKey) { fx.timers = append(fx.timers, TimerOp{Key: k}) }

// Records returns the records of the step, in order. It and the accessors below are for the shard and for tests that
// drive a machine without one.
func (fx *Effects) Records() []record.Record { return fx.records }

// Parked returns the answers that wait for the records.
func (fx *Effects) Parked() []Answer { return fx.parked }

// Immediate returns the answers that wait for nothing.
func (fx *Effects) Immediate() []Answer { return fx.now }

// Timers returns the timer operations of the step, in order.
func (fx *Effects) Timers() []TimerOp { return fx.timers }

// Settles reports whether anything was registered with OnSettled.
func (fx *Effects) Settles() bool { return len(fx.settled) > 0 }

// Undo takes the step's change of replicated state back.
func (fx *Effects) Undo() {
	for i := len(fx.undo) - 1; i >= 0; i-- {
		fx.undo[i]()
	}
}

// Settle runs, as a part of the step of next, what OnSettled registered. Lost steps are undone first, the newest first.
func (fx *Effects) Settle(next *Effects, err error) {
	for _, f := range fx.settled {
		f(next, err)
	}
}

// Promise is the place of one caller's answer. It is answered at most once; later answers are dropped.
type Promise struct {
	answered bool // guarded by being used in the shard's goroutine only
	c        chan outcome
}

type outcome struct {
	value any
	err   error
}

// NewPromise returns an unanswered promise. Call makes its own; tests that drive a machine directly need one.
func NewPromise() *Promise { return &Promise{c: make(chan outcome, 1)} }

func (p *Promise) resolve(v any, err error) {
	if p == nil || p.answered {
		return
	}
	p.answered = true
	p.c <- outcome{v, err}
}
