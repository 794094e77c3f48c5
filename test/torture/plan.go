package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is a kind of fault.
type kind string

// The faults. Each lasts for a while and is then undone.
const (
	kill       kind = "kill"        // SIGKILL; started again after a while
	killAll    kind = "kill-all"    // SIGKILL of all brokers at once
	restart    kind = "restart"     // SIGTERM, which must be a clean end; started again at once
	pause      kind = "pause"       // SIGSTOP
	cutOne     kind = "cut-one-way" // broker does not reach other
	cutBoth    kind = "cut"         // neither reaches the other
	isolate    kind = "isolate"     // nothing reaches broker, and it reaches nothing, clients included
	slow       kind = "slow"        // both ways between two brokers
	full       kind = "full-disk"   // less than the reserve is left
	wipe       kind = "wipe"        // SIGKILL, and its disk is empty when it comes back
	bucketDead kind = "bucket-dead" // connections to the bucket are refused
	bucketHung kind = "bucket-hung" // they are taken, and nothing moves
)

// weights are how often a kind is chosen, and for how long it lasts at least and at most. A pause or a cut beyond the session time-out
// (9 s) has to be among them.
var weights = []struct {
	kind        kind
	weight      int
	least, most time.Duration
}{
	{kill, 6, 200 * time.Millisecond, 8 * time.Second},
	{killAll, 1, 200 * time.Millisecond, 4 * time.Second},
	{restart, 3, 0, 2 * time.Second},
	{pause, 4, 200 * time.Millisecond, 15 * time.Second},
	{cutOne, 4, 500 * time.Millisecond, 15 * time.Second},
	{cutBoth, 3, 500 * time.Millisecond, 15 * time.Second},
	{isolate, 2, 500 * time.Millisecond, 15 * time.Second},
	{slow, 2, 3 * time.Second, 20 * time.Second},
	{full, 2, 3 * time.Second, 15 * time.Second},
	{wipe, 2, 200 * time.Millisecond, 2 * time.Second},
	{bucketDead, 1, 2 * time.Second, 15 * time.Second},
	{bucketHung, 1, 2 * time.Second, 15 * time.Second},
}

const (
	overlap  = 2 // faults at once
	warmUp   = 3 * time.Second
	gapLeast = 200 * time.Millisecond
	gapMost  = 4 * time.Second
)

// fault is one line of the plan. Times count from the beginning of the plan; a wipe waits for a whole cluster before it begins and after
// it has ended, and the times of what follows move by as much.
type fault struct {
	Kind          kind
	Broker, Other int32 // Other: the other end of a link
	At, For       time.Duration
}

func (f fault) end() time.Duration { return f.At + f.For }

func (f fault) String() string {
	s := fmt.Sprintf("%s %d", f.Kind, f.Broker)
	switch f.Kind {
	case killAll, bucketDead, bucketHung:
		s = string(f.Kind)
	case cutOne, cutBoth, slow:
		s += fmt.Sprint("-", f.Other)
	}
	return fmt.Sprintf("%s for %.1f s", s, f.For.Seconds())
}

// newPlan chooses faults for a while from a seed. The rule of what may happen at once: what was acknowledged is synced on the disks of all
// brokers that were in sync, two at least, so only a lost disk can lose it. Therefore one disk is lost at a time, while nothing else is
// wrong and every replica is in sync, and nothing else begins until all replicas are in sync again. Everything else, even the death of
// all brokers, may take away the service but not what was acknowledged; two such faults overlap, not on the same process or link.
func newPlan(seed uint64, brokers int32, length time.Duration, kinds []kind) []fault {
	rng := rand.New(rand.NewPCG(seed, 77))
	var plan, active []fault
	for t := warmUp; t < length; {
		active = slices.DeleteFunc(active, func(f fault) bool { return f.end() <= t })
		if len(active) >= overlap {
			t = slices.MinFunc(active, func(a, b fault) int { return cmp.Compare(a.end(), b.end()) }).end()
			continue
		}
		f, ok := choose(rng, brokers, t, kinds)
		if !ok {
			return nil
		}
		if alone(f.Kind) && len(active) > 0 {
			for _, a := range active {
				t = max(t, a.end())
			}
			f.At = t
			active = nil
		}
		if slices.ContainsFunc(active, func(a fault) bool { return clash(a, f) }) {
			t += gapLeast
			continue
		}
		plan, active = append(plan, f), append(active, f)
		t += gapLeast + rand64(rng, gapMost-gapLeast)
		if alone(f.Kind) {
			t = max(t, f.end())
		}
	}
	return plan
}

// alone are the kinds that take the whole cluster for themselves.
func alone(k kind) bool { return k == wipe || k == killAll }

// clash: the same thing cannot be broken in two ways at once.
func clash(a, b fault) bool {
	switch {
	case alone(a.Kind) || alone(b.Kind):
		return true
	case process(a.Kind) && process(b.Kind):
		return a.Broker == b.Broker
	case a.Kind == bucketDead || a.Kind == bucketHung:
		return b.Kind == bucketDead || b.Kind == bucketHung
	case a.Kind == full && b.Kind == full:
		return a.Broker == b.Broker
	case link(a.Kind) && link(b.Kind):
		if a.Kind == isolate || b.Kind == isolate {
			return true
		}
		return min(a.Broker, a.Other) == min(b.Broker, b.Other) && max(a.Broker, a.Other) == max(b.Broker, b.Other)
	}
	return false
}

func process(k kind) bool { return k == kill || k == restart || k == pause || k == wipe }

func link(k kind) bool { return k == cutOne || k == cutBoth || k == isolate || k == slow }

func choose(rng *rand.Rand, brokers int32, t time.Duration, kinds []kind) (fault, bool) {
	total := 0
	for _, w := range weights {
		if slices.Contains(kinds, w.kind) {
			total += w.weight
		}
	}
	if total == 0 {
		return fault{}, false
	}
	at := rng.IntN(total)
	for _, w := range weights {
		if !slices.Contains(kinds, w.kind) {
			continue
		}
		if at -= w.weight; at < 0 {
			f := fault{Kind: w.kind, At: t, For: w.least + rand64(rng, w.most-w.least), Broker: 1 + rng.Int32N(brokers)}
			if link(w.kind) && w.kind != isolate {
				f.Other = 1 + (f.Broker+rng.Int32N(brokers-1))%brokers
			}
			return f, true
		}
	}
	panic("torture: weights changed while they were read")
}

func rand64(rng *rand.Rand, below time.Duration) time.Duration {
	if below <= 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(below)))
}
