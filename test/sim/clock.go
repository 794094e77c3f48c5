package sim

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/varvelog/varve/internal/clock"
)

// machineClock is the clock of one process: its wall is wrong by what the machine's is, the monotonic clock is not; and no timer fires
// while the process stands still.
type machineClock struct{ p *process }

// Now implements clock.Clock.
func (c machineClock) Now() time.Time { return timeOf(c.p.n.wallSec.Load()) }

// NewTimer implements clock.Clock.
func (c machineClock) NewTimer(d time.Duration) *clock.Timer {
	fired := make(chan time.Time, 1)
	t := time.AfterFunc(d, func() {
		_ = c.p.gate.pass(context.Background()) // without an end it has no error
		fired <- c.Now()
	})
	return clock.TimerOn(fired, t.Stop)
}

// steadyClock is that of everything else. Its times can be compared with those of machines by what is measured.
type steadyClock struct{ clock.Real }

// Now implements clock.Clock.
func (steadyClock) Now() time.Time { return timeOf(0) }

var epoch = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // bubbles begin a year later

// timeOf is the time as a machine tells it whose wall clock is wrong by some seconds: what is measured between two times of any machines
// is right all the same. That is what time.Now gives outside of a bubble and nothing gives within one, where times have no monotonic
// part; so it is made by hand. NB: in a bubble time.Until, and so context.WithDeadline, go by the wall.
func timeOf(wrongSec int64) (t time.Time) {
	type layout struct {
		wall uint64 // a flag, 33 bits of seconds since 1885, 30 bits of nanoseconds
		ext  int64  // monotonic, in nanoseconds
		loc  *time.Location
	}
	const hasMonotonic, secondsAt = 1 << 63, 30
	l := (*layout)(unsafe.Pointer(&t))
	l.wall = hasMonotonic
	now := time.Now()
	l.ext = int64(now.Sub(epoch))
	since := now.Unix() - time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix() + wrongSec
	l.wall = hasMonotonic | uint64(since)<<secondsAt | uint64(now.Nanosecond())
	l.loc = time.Local
	return t
}

// gate is where everything of a process that somebody could see waits while it stands still, as after SIGSTOP. Its threads go on
// until they come to it.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // nil: open
	broken bool          // the process has ended: it does not close any more
}

// shut closes the gate; false where it is closed already, or for ever open.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken || g.opened != nil {
		return false
	}
	g.opened = make(chan struct{})
	return true
}

// open opens the gate, for ever where the process has ended.
func (g *gate) open(ended bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = g.broken || ended
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// pass waits until the gate is open.
func (g *gate) pass(ctx context.Context) error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened == nil {
		return nil
	}
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// trap is set for a process: where it has passed a step of tiering so many times, it stands still there for a while.
type trap struct {
	step  string
	times atomic.Int64
	d     time.Duration
}

// The steps at which a process can be stopped.
const (
	beforePut  = "before a PUT"
	afterPut   = "after a PUT"
	beforeSwap = "before a root is swapped"
	afterSwap  = "after a root is swapped"
)

// at is called by a process at each step.
func (p *process) at(step string) {
	if t := p.trap.Load(); t != nil && t.step == step && t.times.Add(-1) == 0 {
		p.trap.Store(nil)
		p.n.c.count("stopped "+step, 1)
		p.standStill(t.d)
	}
}

// standStill stops the process for a while: SIGSTOP, then SIGCONT.
func (p *process) standStill(d time.Duration) {
	if !p.gate.shut() {
		return
	}
	p.n.c.split(d)
	p.n.c.net.Stop(p.n.ip, true)
	p.n.c.work.Go(func(ctx context.Context) {
		pause(ctx, d)
		p.goOn()
	})
}

// goOn wakes the process.
func (p *process) goOn() {
	p.n.mu.Lock()
	if p.n.proc == p { // else its machine runs another one
		p.n.c.net.Stop(p.n.ip, false)
	}
	p.n.mu.Unlock()
	p.gate.open(false)
}
