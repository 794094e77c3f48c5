package controller

import (
	"cmp"
	"slices"

	"github.com/varvelog/varve/internal/base"
)

// Move gives a partition, by its index among those that were handed in, other replicas or another order of them.
type Move struct {
	Index  int
	Target []base.BrokerID
}

// PlanLeaders returns the indices of at most limit partitions whose preferred leader can lead and does not: those first
// whose present leader leads the most.
func PlanLeaders(states []State, c Cluster, limit int) []int {
	leads := map[base.BrokerID]int{}
	var out []int
	for i := range states {
		leads[states[i].Leader]++
		if _, err := ElectPreferred(states[i], c); err == nil {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(leads[states[b].Leader], leads[states[a].Leader]) })
	return out[:min(limit, len(out))]
}

// slack is the difference between two brokers' loads, the larger of which is given, that is left alone: a tenth, and at least a
// few, so that what an operator has placed is not moved for nothing.
func slack(load int) int { return max(8, load/10) }

// PlanMoves returns reassignments, so many that not more than limit are under way: first those that give partitions the replicas
// that factors asks for (by index, 0: as many as there are; nil: for all), then those that empty draining brokers, then those that spread replicas evenly over the live ones (which fills a new, empty broker), then, where the sets of
// replicas are even, changes of the preferred leader alone. brokers are all that may hold replicas; what they carry is
// counted here. Without spread only the first two. No move puts the replicas of a partition on fewer racks.
func PlanMoves(states []State, factors []int, brokers []Broker, c Cluster, limit int, spread bool) []Move {
	p := newPlanner(states, brokers, c, limit)
	p.grow(factors)
	p.drain()
	if spread {
		p.spread()
		p.prefer()
	}
	return p.moves
}

// planner is one run of PlanMoves: the targets as planned so far, and what each live broker carries by them.
type planner struct {
	states  []State
	c       Cluster
	racks   map[base.BrokerID]string
	carried []Broker
	targets [][]base.BrokerID
	moves   []Move
	moved   []bool // by index
	left    int    // moves that may still be made
}

func newPlanner(states []State, brokers []Broker, c Cluster, limit int) *planner {
	p := &planner{states: states, c: c, racks: map[base.BrokerID]string{}, left: limit, moved: make([]bool, len(states))}
	for _, b := range brokers {
		p.racks[b.ID] = b.Rack
		if c[b.ID] == Live {
			p.carried = append(p.carried, Broker{ID: b.ID, Rack: b.Rack})
		}
	}
	p.targets = make([][]base.BrokerID, len(states))
	for i := range states {
		p.targets[i] = states[i].Target()
		p.count(p.targets[i], 1)
		if states[i].Reassigning() && states[i].Leader != NoLeader {
			p.left--
		}
	}
	return p
}

func (p *planner) broker(id base.BrokerID) *Broker {
	for i := range p.carried {
		if p.carried[i].ID == id {
			return &p.carried[i]
		}
	}
	return nil
}

func (p *planner) count(replicas []base.BrokerID, sign int) {
	for n, id := range replicas {
		if b := p.broker(id); b != nil {
			b.Replicas += sign
			if n == 0 {
				b.Leaders += sign
			}
		}
	}
}

// move plans a target; a partition moves once in a round.
func (p *planner) move(i int, target []base.BrokerID) {
	p.count(p.targets[i], -1)
	p.count(target, 1)
	p.targets[i], p.moved[i] = target, true
	p.moves = append(p.moves, Move{Index: i, Target: target})
	p.left--
}

func (p *planner) movable(i int) bool {
	return p.states[i].Leader != NoLeader && !p.states[i].Reassigning() && !p.moved[i]
}

// grow adds replicas where there are fewer than a factor asks for and a live broker has none.
func (p *planner) grow(factors []int) {
	for i := range factors {
		missing := min(factors[i], len(p.carried)) - len(p.targets[i])
		if missing <= 0 || p.left <= 0 || !p.movable(i) {
			continue
		}
		target := slices.Clone(p.targets[i])
		for range missing {
			if b := pick(p.carried, target, p.racksOf(target, -1), false); b != nil {
				target = append(target, b.ID)
			}
		}
		if len(target) > len(p.targets[i]) {
			p.move(i, target)
		}
	}
}

// racksOf counts the racks of replicas but for one.
func (p *planner) racksOf(replicas []base.BrokerID, but int) map[string]int {
	used := map[string]int{}
	for n, id := range replicas {
		if rack := p.racks[id]; n != but && rack != "" {
			used[rack]++
		}
	}
	return used
}

func (p *planner) drain() {
	for i := range p.states {
		if p.left <= 0 {
			return
		}
		if !slices.ContainsFunc(p.targets[i], func(id base.BrokerID) bool { return p.c[id].emptied() }) || !p.movable(i) {
			continue
		}
		target := slices.Clone(p.targets[i])
		for n, id := range target {
			if !p.c[id].emptied() {
				continue
			}
			if b := pick(p.carried, target, p.racksOf(target, n), n == 0); b != nil {
				target[n] = b.ID
			}
		}
		if !slices.Equal(target, p.targets[i]) {
			p.move(i, target)
		}
	}
}

// spread moves single replicas from brokers that hold more to those that hold less, until the difference is slack.
func (p *planner) spread() {
	for p.left > 0 && p.spreadOne() {
	}
}

func (p *planner) spreadOne() bool {
	byLoad := slices.Clone(p.carried)
	slices.SortFunc(byLoad, func(a, b Broker) int {
		return cmp.Or(cmp.Compare(b.Replicas, a.Replicas), cmp.Compare(a.ID, b.ID))
	})
	for _, from := range byLoad {
		for _, to := range slices.Backward(byLoad) {
			if from.Replicas-to.Replicas <= slack(from.Replicas) {
				break
			}
			if p.shift(from, to) {
				return true
			}
		}
	}
	return false
}

// shift moves one replica between two brokers, that of a preferred leader where the first leads more.
func (p *planner) shift(from, to Broker) bool {
	found, at := -1, 0
	for i, target := range p.targets {
		n := slices.Index(target, from.ID)
		if n < 0 || slices.Contains(target, to.ID) || !p.movable(i) || !p.keepsRacks(target, from, to) {
			continue
		}
		found, at = i, n
		if (n == 0) == (from.Leaders > to.Leaders) {
			break
		}
	}
	if found < 0 {
		return false
	}
	target := slices.Clone(p.targets[found])
	target[at] = to.ID
	p.move(found, target)
	return true
}

func (p *planner) keepsRacks(target []base.BrokerID, from, to Broker) bool {
	before, after := map[string]struct{}{}, map[string]struct{}{to.Rack: {}}
	for _, id := range target {
		before[p.racks[id]] = struct{}{}
		if id != from.ID {
			after[p.racks[id]] = struct{}{}
		}
	}
	return len(after) >= len(before)
}

// prefer exchanges the preferred leader with another replica while one broker is preferred by more than slack over another.
func (p *planner) prefer() {
	for i := range p.states {
		if p.left <= 0 {
			return
		}
		target := p.targets[i]
		first := p.broker(target[0])
		if first == nil || !p.movable(i) {
			continue
		}
		best := 0
		for n, id := range target {
			b := p.broker(id)
			if b == nil || first.Leaders-b.Leaders <= slack(first.Leaders) {
				continue
			}
			if best == 0 || b.Leaders < p.broker(target[best]).Leaders {
				best = n
			}
		}
		if best > 0 {
			target = slices.Clone(target)
			target[0], target[best] = target[best], target[0]
			p.move(i, target)
		}
	}
}
