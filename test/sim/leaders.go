package sim

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// The faults of this file meet leaders at the moments that matter. Which broker leads follows from the run, not from the seed.

// wrongMost is how far a wall clock is wrong at most.
const wrongMost = 6 * time.Hour

// leader is a broker that leads a partition of the topic; any one where none does.
func (a *adversary) leader() *node {
	any, index := a.node(), int32(a.rng.IntN(a.c.plan.partitions))
	if p, ok := a.c.ofTopic(index); ok && p.Leader > 0 {
		return a.c.nodes[p.Leader-1]
	}
	return any
}

// stopped makes a leader stand still, as SIGSTOP does, in the middle of tiering, until others may have tiered after it. It wakes
// up with everything that it was about to do.
func (a *adversary) stopped(ctx context.Context) {
	n := a.leader()
	t := &trap{step: []string{beforePut, afterPut, beforeSwap, afterSwap}[a.rng.IntN(4)], d: a.between(time.Second, 15*time.Second)}
	t.times.Store(1 + a.rng.Int64N(3))
	patience := a.between(5*time.Second, 15*time.Second)
	p := n.current()
	if p == nil {
		return
	}
	p.trap.Store(t)
	a.later(ctx, patience, func() { p.trap.CompareAndSwap(t, nil) })
}

// slowPuts lets a broker's PUTs be under way for seconds: they land after it was replaced, or has ended.
func (a *adversary) slowPuts(ctx context.Context, n *node) {
	n.putsMs.Store(a.between(time.Second, 8*time.Second).Milliseconds())
	a.later(ctx, a.between(3*time.Second, 20*time.Second), func() { n.putsMs.Store(0) })
}

// wrongClock sets a machine's wall clock, forward or back, by minutes or by hours; later it is right again, or not before the end.
func (a *adversary) wrongClock(ctx context.Context) {
	n, by := a.node(), a.between(time.Minute, []time.Duration{time.Hour, wrongMost}[a.rng.IntN(2)])
	if a.rng.IntN(2) == 0 {
		by = -by
	}
	n.wallSec.Store(int64(by / time.Second))
	if a.rng.IntN(2) == 0 {
		a.later(ctx, a.between(time.Second, 20*time.Second), func() { n.wallSec.Store(0) })
	}
}

// twoLeaders ends a leader, and then its successor, before the third replica has caught up with either (KIP-101). The successor has
// less of the log than the third one, which has heard less of what is committed; and the third one hears from the successor a
// few answers, and then none.
func (a *adversary) twoLeaders(ctx context.Context) {
	index := int32(a.rng.IntN(a.c.plan.partitions))
	behind, until := a.between(300*time.Millisecond, 800*time.Millisecond), 0.3+0.7*a.rng.Float64()
	settled, answers, alone := a.between(time.Second, 2*time.Second), 1+a.rng.IntN(4), a.between(200*time.Millisecond, 2*time.Second)
	share, back, down := a.share(), a.between(6*time.Second, 15*time.Second), a.between(3*time.Second, 8*time.Second)
	if len(a.c.nodes) == 3 { // the last one needs somebody to elect it
		back = a.between(50*time.Millisecond, time.Second)
	}
	rng := rand.New(rand.NewPCG(a.seed, a.rng.Uint64()))
	p, ok := a.c.ofTopic(index)
	if !ok || len(p.ISR) < 3 {
		return
	}
	first := a.c.nodes[p.Leader-1]
	next := slices.DeleteFunc(slices.Clone(p.Replicas), func(id int32) bool { return id == p.Leader })[0]
	a.slowLink(ctx, first, a.c.nodes[next-1], behind)
	if !pause(ctx, settled) {
		return
	}
	for _, n := range a.c.nodes {
		if n != first && n.id != next {
			a.cutOne(ctx, first.ip, n.ip, behind)
		}
		if n != first {
			for _, o := range a.c.nodes {
				a.slowLink(ctx, n, o, 60*time.Millisecond)
			}
		}
	}
	pause(ctx, time.Duration(until*float64(behind)))
	first.down(back)
	if !first.kill(first.current(), share, rng) {
		return
	}
	for range 250 {
		p, ok = a.c.ofTopic(index)
		if ok && p.Leader > 0 && p.Leader != first.id {
			a.second(ctx, a.c.nodes[p.Leader-1], answers, alone, func(n *node) bool {
				n.down(down)
				return n.kill(n.current(), share, rng)
			})
			return
		}
		if !pause(ctx, 20*time.Millisecond) {
			return
		}
	}
}

// second lets a new leader give a few answers to each other broker, and ends it.
func (a *adversary) second(ctx context.Context, n *node, answers int, after time.Duration, end func(*node) bool) {
	a.c.split(after)
	for _, o := range a.c.nodes {
		if o != n {
			a.c.net.CutAfter(n.ip, o.ip, answers)
		}
	}
	pause(ctx, after)
	if end(n) {
		a.c.count("second leaders", 1)
	}
	for _, o := range a.c.nodes {
		if o != n {
			a.c.net.Cut(n.ip, o.ip, false)
		}
	}
}

// slowLink delays what goes from one broker to another.
func (a *adversary) slowLink(ctx context.Context, from, to *node, by time.Duration) {
	if from != to {
		a.c.net.Slow(from.ip, to.ip, by)
		a.later(ctx, 10*time.Second, func() { a.c.net.Slow(from.ip, to.ip, 0) })
	}
}
