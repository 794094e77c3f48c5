package controller

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/varvelog/varve/internal/base"
)

// hotMemory is how long a replica that was moved counts as large as before: it starts from the end of the tiered range, and what its
// topic keeps locally it has only after a while. Were it counted by what it has, others would follow it until the broker is too full.
const hotMemory = time.Hour

// HotRules are the settings that decide the balance of hot bytes.
type HotRules struct {
	SlackRatio     float64       // a difference between two brokers up to this part of what the fuller one has is left alone
	SlackBytes     int64         // and one up to so many bytes
	BytesPerSecond int64         // that begin to move, on average
	Interval       time.Duration // between two plans: at most what the rate gives for one interval begins to move at once
	Moves          int           // the most reassignments in a plan
}

func (r HotRules) slack(fuller int64) int64 {
	return max(r.SlackBytes, int64(r.SlackRatio*float64(fuller)))
}

// HotPartition is a partition and how many hot bytes its replicas have.
type HotPartition struct {
	ID    base.TopicPartition
	State State
	Bytes map[base.BrokerID]int64
}

// HotPlan is what follows from one look at all brokers.
type HotPlan struct {
	Moves      []Move // by the index of the partition
	Bytes      int64  // that they move at most
	Difference int64  // between the fullest and the emptiest broker before them
	Slack      int64  // up to which it would have been left alone
}

// HotBalance evens out the hot bytes of brokers. It is pure, as Tracker is: it remembers, time is passed in. That it ends follows from
//
//   - a move makes the difference of its two brokers smaller, so that the sum of the squares of all loads falls;
//   - it starts where a difference is past the slack, and then goes on to half of that, so that what is written meanwhile does not start
//     it again at once;
//   - it does not leave numbers of replicas that PlanMoves would even out: where one more is too many, a light one comes back for it.
//
// Not safe for concurrent use.
type HotBalance struct {
	left    int64     // bytes that may begin to move; below zero after a partition that is larger than an interval's worth
	at      time.Time // of the last plan; zero: none
	evening bool      // a difference was past the slack, and is not yet down to half of it
	moved   map[base.TopicPartition]movedBytes
}

// movedBytes is what a partition counts at least.
type movedBytes struct {
	bytes int64
	until time.Time
}

// Whole reports whether every broker that is known serves and every replica of every partition is in sync: nothing else moves bytes,
// and nothing that a move takes away is needed.
func Whole(states []State, brokers []Broker, c Cluster) bool {
	if slices.ContainsFunc(brokers, func(b Broker) bool { return c[b.ID] < Draining }) {
		return false
	}
	return !slices.ContainsFunc(states, func(s State) bool {
		return s.Leader == NoLeader || s.Reassigning() || len(s.ISR) < len(s.Replicas)
	})
}

// Plan returns what is to move, from the fullest brokers to the emptiest. A move is of one replica, and costs at most the hot bytes of
// its partition. No move puts the replicas of a partition on fewer racks; there is none unless all is Whole.
func (h *HotBalance) Plan(partitions []HotPartition, brokers []Broker, c Cluster, r HotRules, now time.Time) HotPlan {
	h.refill(r, now)
	maps.DeleteFunc(h.moved, func(_ base.TopicPartition, m movedBytes) bool { return !now.Before(m.until) })
	states := make([]State, len(partitions))
	for i := range partitions {
		states[i] = partitions[i].State
	}
	if !Whole(states, brokers, c) {
		return HotPlan{}
	}
	p := hotPlanner{planner: newPlanner(states, brokers, c, r.Moves), h: h, rules: r, load: map[base.BrokerID]int64{}}
	if len(p.carried) < 2 {
		return HotPlan{}
	}
	p.weigh(partitions)
	fullest, emptiest := p.ends()
	plan := HotPlan{Difference: fullest - emptiest, Slack: r.slack(fullest)}
	switch {
	case plan.Difference > plan.Slack:
		h.evening = true
	case plan.Difference <= plan.Slack/2:
		h.evening = false
	}
	if !h.evening {
		return plan
	}
	rested := h.left == p.most()
	for p.left > 0 && p.moveOne() {
	}
	if plan.Moves, plan.Bytes = p.moves, p.cost; rested && len(p.moves) == 0 {
		h.evening = false // nothing can be done: what is past the slack is looked at again, what is not is left alone
	}
	for _, m := range plan.Moves {
		if h.moved == nil {
			h.moved = map[base.TopicPartition]movedBytes{}
		}
		h.moved[partitions[m.Index].ID] = movedBytes{p.weight[m.Index], now.Add(hotMemory)}
	}
	return plan
}

// refill adds what the rate gives since the last plan. The first one has an interval's worth.
func (h *HotBalance) refill(r HotRules, now time.Time) {
	most := r.most()
	gained := float64(most)
	if !h.at.IsZero() {
		gained = float64(r.BytesPerSecond) * max(0, now.Sub(h.at).Seconds())
	}
	h.left, h.at = int64(min(float64(most), float64(h.left)+gained)), now
}

// most is an interval's worth of bytes.
func (r HotRules) most() int64 { return int64(float64(r.BytesPerSecond) * r.Interval.Seconds()) }

// hotPlanner is one run of Plan.
type hotPlanner struct {
	*planner
	h      *HotBalance
	rules  HotRules
	weight []int64 // of a partition: the hot bytes of a replica that has all that its topic keeps locally
	load   map[base.BrokerID]int64
	cost   int64
}

func (p *hotPlanner) most() int64 { return p.rules.most() }

func (p *hotPlanner) weigh(partitions []HotPartition) {
	p.weight = make([]int64, len(partitions))
	for i := range partitions {
		p.weight[i] = p.h.moved[partitions[i].ID].bytes
		for _, id := range partitions[i].State.Replicas {
			p.weight[i] = max(p.weight[i], partitions[i].Bytes[id])
		}
		for _, id := range p.targets[i] {
			p.load[id] += p.weight[i]
		}
	}
}

// byLoad are the brokers that take part, the fullest first.
func (p *hotPlanner) byLoad() []Broker {
	return slices.SortedFunc(slices.Values(p.carried), func(a, b Broker) int {
		return cmp.Or(cmp.Compare(p.load[b.ID], p.load[a.ID]), cmp.Compare(a.ID, b.ID))
	})
}

// ends are the loads of the fullest and of the emptiest broker.
func (p *hotPlanner) ends() (fullest, emptiest int64) {
	byLoad := p.byLoad()
	return p.load[byLoad[0].ID], p.load[byLoad[len(byLoad)-1].ID]
}

// moveOne plans one move, or an exchange, between the two brokers that differ most and have something to move.
func (p *hotPlanner) moveOne() bool {
	byLoad := p.byLoad()
	for _, from := range byLoad {
		for _, to := range slices.Backward(byLoad) {
			if p.load[from.ID]-p.load[to.ID] <= p.rules.slack(p.load[from.ID])/2 {
				break
			}
			if p.lighten(from, to) {
				return true
			}
		}
	}
	return false
}

// lighten moves what comes nearest to half of the difference. Where all that could move is little beside the difference nothing does:
// a partition that is larger than the rest of its broker would drive all others away and change nothing.
func (p *hotPlanner) lighten(from, to Broker) bool {
	difference := p.load[from.ID] - p.load[to.ID]
	best, all := -1, int64(0)
	for i, weight := range p.weight {
		if weight == 0 || weight > difference/4*3 || !p.fits(i, from, to) {
			continue
		}
		all += weight
		if p.affords(weight) && (best < 0 || p.nearer(i, best, from, difference)) {
			best = i
		}
	}
	if best < 0 || all < difference/8 {
		return false
	}
	if p.keepsNumbers(from, to) {
		p.shift(best, from, to)
		return true
	}
	back := p.lightest(to, from)
	if back < 0 || p.left < 2 || p.weight[back] > p.weight[best]/2 || !p.affords(p.weight[best]+p.weight[back]) {
		return false
	}
	p.shift(best, from, to)
	p.shift(back, to, from)
	return true
}

// nearer reports whether i brings two brokers nearer to each other than j; one that is not led by the fuller one first where it is the same.
func (p *hotPlanner) nearer(i, j int, from Broker, difference int64) bool {
	off := func(n int) int64 { return max(difference-2*p.weight[n], 2*p.weight[n]-difference) }
	leads := func(n int) int {
		if p.targets[n][0] == from.ID {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(off(i), off(j)), cmp.Compare(leads(i), leads(j))) < 0
}

// lightest is the partition with the fewest hot bytes that could move, -1 where there is none.
func (p *hotPlanner) lightest(from, to Broker) int {
	best := -1
	for i, weight := range p.weight {
		if (best < 0 || weight < p.weight[best]) && p.fits(i, from, to) {
			best = i
		}
	}
	return best
}

func (p *hotPlanner) fits(i int, from, to Broker) bool {
	target := p.targets[i]
	return slices.Contains(target, from.ID) && !slices.Contains(target, to.ID) && p.movable(i) && p.keepsRacks(target, from, to)
}

// affords reports whether bytes may begin to move now. What is more than an interval's worth moves alone, after a pause, and the pause
// after it is longer.
func (p *hotPlanner) affords(bytes int64) bool {
	return bytes <= p.h.left || p.cost == 0 && p.h.left == p.most() && p.most() > 0
}

// keepsNumbers reports whether one more replica there and one less here is nothing that PlanMoves would even out, or makes
// it at least no worse.
func (p *hotPlanner) keepsNumbers(from, to Broker) bool {
	ends := func(give int) (most, least int) {
		most, least = 0, len(p.states)
		for _, b := range p.carried {
			n := b.Replicas
			switch b.ID {
			case from.ID:
				n -= give
			case to.ID:
				n += give
			}
			most, least = max(most, n), min(least, n)
		}
		return most, least
	}
	most, least := ends(1)
	before, under := ends(0)
	return most-least <= max(slack(most), before-under)
}

func (p *hotPlanner) shift(i int, from, to Broker) {
	target := slices.Clone(p.targets[i])
	target[slices.Index(target, from.ID)] = to.ID
	p.move(i, target)
	weight := p.weight[i]
	p.load[from.ID] -= weight
	p.load[to.ID] += weight
	p.h.left -= weight
	p.cost += weight
}
