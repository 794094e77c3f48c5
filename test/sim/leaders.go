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

// twoLeaders ends a leader, and then its successor, before the third replica has caught up with either: the links are so slow that
// what the replicas have, and what they know to be committed, differs (KIP-101).
func (a *adversary) twoLeaders(ctx context.Context) {
	index := int32(a.rng.IntN(a.c.plan.partitions))
	p, ok := a.c.ofTopic(index)
	if !ok || len(p.ISR) < 3 {
		return
	}
	first := a.c.nodes[p.Leader-1]
	a.slowLinks(ctx, first, 20*time.Millisecond, 300*time.Millisecond)
	next := slices.DeleteFunc(slices.Clone(p.Replicas), func(id int32) bool { return id == p.Leader })
	if a.rng.IntN(4) > 0 { // the one that will lead has less than the other
		a.c.net.Slow(first.ip, a.c.nodes[next[0]-1].ip, a.between(300*time.Millisecond, 700*time.Millisecond))
	}
	if !pause(ctx, a.between(time.Second, 3*time.Second)) {
		return
	}
	share, back, down := a.share(), a.between(6*time.Second, 15*time.Second), a.between(3*time.Second, 8*time.Second)
	if len(a.c.nodes) == 3 { // the last one needs somebody to elect it
		back = a.between(50*time.Millisecond, time.Second)
	}
	d, wait := a.between(150*time.Millisecond, 500*time.Millisecond), 1+4*a.rng.Float64()
	for _, n := range a.c.nodes {
		if n != first {
			a.slowLinks(ctx, n, d, d+time.Millisecond)
		}
	}
	rng := rand.New(rand.NewPCG(a.seed, a.rng.Uint64()))
	first.down(back)
	if !first.kill(first.current(), share, rng) {
		return
	}
	for range 100 {
		p, ok := a.c.ofTopic(index)
		if ok && p.Leader > 0 && p.Leader != first.id {
			pause(ctx, time.Duration(wait*float64(d)))
			second := a.c.nodes[p.Leader-1]
			second.down(down)
			if second.kill(second.current(), share, rng) {
				a.c.count("second leaders", 1)
			}
			return
		}
		if !pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// slowLinks delays what goes from a broker to each other one, by times of its own.
func (a *adversary) slowLinks(ctx context.Context, from *node, least, most time.Duration) {
	for _, n := range a.c.nodes {
		if n != from {
			a.c.net.Slow(from.ip, n.ip, a.between(least, most))
			a.later(ctx, 10*time.Second, func() { a.c.net.Slow(from.ip, n.ip, 0) })
		}
	}
}
