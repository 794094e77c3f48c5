package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
)

const mb = 1 << 20

// hotCluster is what a controller would see: brokers, partitions, and the hot bytes of every replica.
type hotCluster struct {
	t          *testing.T
	brokers    []Broker
	c          Cluster
	partitions []HotPartition
	balance    HotBalance
	rules      HotRules
	now        time.Time
	budget     int64 // what the rate has given so far
	moved      int64
	sizes      []int64 // of the partitions
	rounds     int
}

// newHotCluster has brokers 1 to n, on so many racks, and the partitions that sizes gives, in bytes, each on the replicas of its turn.
func newHotCluster(t *testing.T, n, racks int, replicas [][]base.BrokerID, sizes []int64) *hotCluster {
	h := &hotCluster{
		t: t, c: Cluster{}, now: time.Unix(1000, 0), sizes: sizes,
		rules: HotRules{SlackRatio: 0.1, SlackBytes: 10 * mb, BytesPerSecond: 10 * mb, Interval: 10 * time.Second, Moves: 100},
	}
	for id := base.BrokerID(1); id <= base.BrokerID(n); id++ {
		h.brokers = append(h.brokers, Broker{ID: id, Rack: fmt.Sprint(int(id) % racks)})
		h.c[id] = Live
	}
	for i, size := range sizes {
		r := replicas[i%len(replicas)]
		p := HotPartition{
			ID: base.TopicPartition{Topic: "t", Partition: int32(i)}, State: State{Replicas: r, ISR: r, Leader: r[0]}, Bytes: map[base.BrokerID]int64{},
		}
		for _, id := range r {
			p.Bytes[id] = size
		}
		h.partitions = append(h.partitions, p)
	}
	h.budget = h.rules.most()
	return h
}

func (h *hotCluster) states() (states []State) {
	for _, p := range h.partitions {
		states = append(states, p.State)
	}
	return states
}

func (h *hotCluster) racksOf(replicas []base.BrokerID) int {
	on := map[string]bool{}
	for _, id := range replicas {
		on[h.brokers[id-1].Rack] = true
	}
	return len(on)
}

// round is one interval: a plan, which is done at once, and checks of what every plan promises. A new replica has but part of
// the bytes, as one has that starts from the end of the tiered range.
func (h *hotCluster) round(part int64) HotPlan {
	h.t.Helper()
	plan := h.balance.Plan(h.partitions, h.brokers, h.c, h.rules, h.now)
	h.now = h.now.Add(h.rules.Interval)
	most := h.rules.most() // and once what a single partition has above it
	for _, p := range h.partitions {
		most = max(most, p.Bytes[p.State.Leader])
	}
	if h.moved += plan.Bytes; h.moved > h.budget+most-h.rules.most() {
		h.t.Fatalf("%d bytes have moved, the rate gave %d", h.moved, h.budget)
	}
	h.budget += h.rules.most()
	seen := map[int]bool{}
	for _, m := range plan.Moves {
		p := &h.partitions[m.Index]
		distinct := slices.Compact(slices.Sorted(slices.Values(m.Target)))
		if seen[m.Index] || len(distinct) != len(p.State.Replicas) || h.racksOf(m.Target) < h.racksOf(p.State.Replicas) {
			h.t.Fatalf("%v becomes %v", p.State.Replicas, m.Target)
		}
		seen[m.Index] = true
		bytes := map[base.BrokerID]int64{}
		most := int64(0)
		for _, n := range p.Bytes {
			most = max(most, n)
		}
		for _, id := range m.Target {
			if n, ok := p.Bytes[id]; ok {
				bytes[id] = n
			} else {
				bytes[id] = most / part
			}
		}
		p.State.Replicas, p.State.ISR, p.State.Leader, p.Bytes = m.Target, m.Target, m.Target[0], bytes
	}
	if h.rounds++; h.rounds%20 == 0 { // what the topics keep has been written meanwhile
		for i, p := range h.partitions {
			for id := range p.Bytes {
				p.Bytes[id] = h.sizes[i]
			}
		}
	}
	if len(plan.Moves) > 0 {
		if more := PlanMoves(h.states(), nil, h.brokers, h.c, 100, true); slices.ContainsFunc(more, func(m Move) bool {
			return !sameSet(m.Target, h.partitions[m.Index].State.Replicas)
		}) {
			h.t.Fatalf("the balance of numbers undoes it: %v", more)
		}
	}
	return plan
}

func sameSet(a, b []base.BrokerID) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// settle plans until nothing has moved for longer than a move is remembered, and returns how many rounds that took, how many moves,
// and the loads in MB.
func (h *hotCluster) settle(part int64) (rounds, moves int, loads []int64) {
	h.t.Helper()
	last := h.now
	for h.now.Sub(last) < hotMemory+h.rules.Interval*30 {
		if rounds++; rounds > 5000 {
			h.t.Fatal("it never ends")
		}
		if plan := h.round(part); len(plan.Moves) > 0 {
			moves, last = moves+len(plan.Moves), h.now
		}
	}
	loads = make([]int64, len(h.brokers))
	for i, p := range h.partitions {
		for _, id := range p.State.Replicas {
			loads[id-1] += h.sizes[i]
		}
	}
	for i := range loads {
		loads[i] /= mb
	}
	return rounds, moves, loads
}

func repeat(n int, size int64) []int64 { return slices.Repeat([]int64{size}, n) }

func TestPlanHotConverges(t *testing.T) {
	f := func(what string, h *hotCluster, wantMoves int, want string) {
		t.Helper()
		rounds, moves, loads := h.settle(1)
		if got := fmt.Sprint(loads); got != want || moves != wantMoves {
			t.Errorf("%s: %d moves in %d rounds, %s; want %d moves, %s", what, moves, rounds, got, wantMoves, want)
		}
	}
	one, turns := [][]base.BrokerID{{1}}, [][]base.BrokerID{{1}, {2}, {3}}
	f("all on one", newHotCluster(t, 3, 1, one, repeat(6, 60*mb)), 4, "[120 120 120]")
	f("every third is large", newHotCluster(t, 3, 1, turns, []int64{90 * mb, mb, mb, 90 * mb, mb, mb, 90 * mb, mb, mb}), 2, "[90 93 93]")
	f("within the slack", newHotCluster(t, 3, 1, turns, []int64{20 * mb, 11 * mb, 10 * mb}), 0, "[20 11 10]")
	f("within a tenth", newHotCluster(t, 3, 1, turns, []int64{500 * mb, 450 * mb, 450 * mb, 1 * mb, 1 * mb, 1 * mb}), 0, "[501 451 451]")
	f("one that is too large to help", newHotCluster(t, 3, 1, one, []int64{900 * mb, 1 * mb, 1 * mb}), 0, "[902 0 0]")
	f("all brokers have all", newHotCluster(t, 3, 1, [][]base.BrokerID{{1, 2, 3}}, repeat(9, 60*mb)), 0, "[540 540 540]")
}

// Of forty partitions for each of three brokers the first ten on broker 1 are large: more than the slack of numbers leaves room for.
func TestPlanHotExchanges(t *testing.T) {
	var sizes []int64
	for i := range 120 {
		if size := int64(mb / 4); i%3 == 0 {
			sizes = append(sizes, 20*mb)
		} else {
			sizes = append(sizes, size)
		}
	}
	h := newHotCluster(t, 3, 1, [][]base.BrokerID{{1}, {2}, {3}}, sizes)
	_, moves, loads := h.settle(1)
	if slices.Max(loads)-slices.Min(loads) > 40 || moves > 60 {
		t.Errorf("%d moves: %v", moves, loads)
	}
	held := make([]int, 4)
	for _, p := range h.partitions {
		held[p.State.Leader]++
	}
	if most := slices.Max(held[1:]); most-slices.Min(held[1:]) > slack(most) {
		t.Errorf("replicas: %v", held[1:])
	}
}

// With one replica each a moved one starts almost empty: what it will have counts, not what it has.
func TestPlanHotCountsWhatAReplicaWillHave(t *testing.T) {
	h := newHotCluster(t, 3, 1, [][]base.BrokerID{{1}}, repeat(9, 60*mb))
	if _, moves, loads := h.settle(60); moves != 6 || fmt.Sprint(loads) != "[180 180 180]" {
		t.Errorf("%d moves: %v", moves, loads)
	}
}

// besideNothing gives broker 1 partitions of a size, and broker 2 as many that are empty.
func besideNothing(t *testing.T, n int, size int64) *hotCluster {
	return newHotCluster(t, 2, 1, [][]base.BrokerID{{1}, {2}}, slices.Repeat([]int64{size, 0}, n))
}

func TestPlanHotRate(t *testing.T) {
	h := besideNothing(t, 20, 30*mb)
	bytes := func(want int64) {
		t.Helper()
		if plan := h.round(1); plan.Bytes != want*mb {
			t.Errorf("a round moves %d MB, want %d", plan.Bytes/mb, want)
		}
	}
	bytes(90) // of 100
	bytes(90)
	h.rules.BytesPerSecond = 0
	h.balance.left = 0
	bytes(0)
	h.rules.BytesPerSecond = 3 * mb
	bytes(30)
	h.rules.Moves, h.rules.BytesPerSecond = 2, 10*mb
	bytes(30) // and one comes back for it, for the numbers

	// Larger than an interval's worth: one alone, then nothing until the rate has given as much.
	h = besideNothing(t, 4, 250*mb)
	bytes(250)
	bytes(0)
	bytes(0)
	bytes(250)
	bytes(0)
}

func TestPlanHotHysteresis(t *testing.T) {
	h := besideNothing(t, 20, mb)
	h.rules.SlackBytes, h.rules.BytesPerSecond, h.rules.Interval = 12*mb, mb, 4*time.Second
	f := func(difference, moved int64) {
		t.Helper()
		if plan := h.round(1); plan.Difference != difference*mb || plan.Bytes != moved*mb {
			t.Errorf("difference %d MB, %d move; want %d MB, %d", plan.Difference/mb, plan.Bytes/mb, difference, moved)
		}
	}
	f(20, 4)
	f(12, 3) // within the slack, but not within half of it
	f(6, 0)
	f(6, 0)
	h.partitions[0].Bytes[h.partitions[0].State.Leader] += 5 * mb
	plan := h.round(1)
	if plan.Difference > plan.Slack || len(plan.Moves) > 0 {
		t.Errorf("past half of the slack, but not past the slack: %+v", plan)
	}
}

func TestPlanHotWaits(t *testing.T) {
	two := []base.BrokerID{1, 2}
	f := func(what string, want bool, change func(h *hotCluster)) {
		t.Helper()
		h := newHotCluster(t, 4, 1, [][]base.BrokerID{two}, repeat(6, 30*mb))
		change(h)
		if plan := h.balance.Plan(h.partitions, h.brokers, h.c, h.rules, h.now); (len(plan.Moves) > 0) != want {
			t.Errorf("%s: %+v", what, plan)
		}
	}
	f("all is well", true, func(*hotCluster) {})
	f("a broker is missing", false, func(h *hotCluster) { h.c[4] = Fenced })
	f("a broker lost its disk", false, func(h *hotCluster) { h.c[4] = Wiped })
	f("a broker shuts down", false, func(h *hotCluster) { h.c[4] = Leaving })
	f("a broker was drained", true, func(h *hotCluster) { h.c[4] = Draining })
	f("a replica is out of sync", false, func(h *hotCluster) { h.partitions[5].State.ISR = two[:1] })
	f("a partition has no leader", false, func(h *hotCluster) { h.partitions[5].State.Leader = NoLeader })
	f("a reassignment is under way", false, func(h *hotCluster) {
		h.partitions[5].State.Replicas, h.partitions[5].State.Adding = []base.BrokerID{1, 2, 3}, []base.BrokerID{3}
	})
}

// Nothing goes to a broker that is to be emptied.
func TestPlanHotLeavesDrainedBrokersEmpty(t *testing.T) {
	h := newHotCluster(t, 3, 1, [][]base.BrokerID{{1}}, repeat(6, 30*mb))
	h.c[3] = Draining
	if _, _, loads := h.settle(1); fmt.Sprint(loads) != "[90 90 0]" {
		t.Errorf("loads %v", loads)
	}
}

// On three racks, of which the third has two brokers, a replica of the first rack's only broker has nowhere to go.
func TestPlanHotKeepsRacks(t *testing.T) {
	h := newHotCluster(t, 4, 3, [][]base.BrokerID{{2, 3, 1}}, repeat(8, 30*mb))
	if _, _, loads := h.settle(1); fmt.Sprint(loads) != "[120 240 240 120]" {
		t.Errorf("loads %v: brokers 1 and 4 are of one rack", loads)
	}
}

// Whatever the sizes are, it ends, within the slack where partitions are small enough beside it, and its steps hold what round checks.
func TestPlanHotAtRandom(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		n, racks, factor := 3+r.IntN(5), 1+r.IntN(3), 1+r.IntN(3)
		sizes := make([]int64, 20+r.IntN(200))
		for i := range sizes {
			if sizes[i] = r.Int64N(2 * mb); r.IntN(8) == 0 {
				sizes[i] = r.Int64N(60 * mb)
			}
		}
		h := newHotCluster(t, n, racks, nil, nil)
		replicas := Place(h.brokers, len(sizes), factor)
		h = newHotCluster(t, n, racks, replicas, sizes)
		h.rules.SlackBytes, h.rules.BytesPerSecond, h.rules.Interval = 50*mb, 2*mb, time.Minute
		h.budget = h.rules.most()
		rounds, moves, loads := h.settle(1 + r.Int64N(9))
		allowed := max(50, slices.Max(loads)/10)
		if racks == 1 && slices.Max(loads)-slices.Min(loads) > allowed {
			t.Errorf("seed %d: %d brokers, %d partitions, %d moves in %d rounds: %v", seed, n, len(sizes), moves, rounds, loads)
		}
		if moves > len(sizes)*factor {
			t.Errorf("seed %d: %d moves of %d partitions", seed, moves, len(sizes))
		}
	}
}
