package controller

import (
	"fmt"
	"slices"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

// rounds plans until nothing is left to do, each move done at once, and checks what every round promises.
func rounds(t *testing.T, states []State, brokers []Broker, c Cluster, limit int) int {
	t.Helper()
	racks := map[base.BrokerID]string{}
	for _, b := range brokers {
		racks[b.ID] = b.Rack
	}
	spread := func(ids []base.BrokerID) int {
		on := map[string]bool{}
		for _, id := range ids {
			on[racks[id]] = true
		}
		return len(on)
	}
	for n := range 1000 {
		moves := PlanMoves(states, nil, brokers, c, limit, true)
		if len(moves) == 0 {
			return n
		}
		if len(moves) > limit {
			t.Fatalf("%d moves, limit %d", len(moves), limit)
		}
		for _, m := range moves {
			s := &states[m.Index]
			sorted := slices.Compact(slices.Sorted(slices.Values(m.Target)))
			drains := slices.ContainsFunc(s.Replicas, func(id base.BrokerID) bool { return c[id] == Draining })
			if len(sorted) != len(s.Replicas) || len(m.Target) != len(s.Replicas) || !drains && spread(m.Target) < spread(s.Replicas) {
				t.Fatalf("%v becomes %v", s.Replicas, m.Target)
			}
			s.Replicas, s.ISR, s.Leader = m.Target, m.Target, m.Target[0]
		}
	}
	t.Fatal("it never ends")
	return 0
}

func loads(states []State) (replicas, leaders map[base.BrokerID]int) {
	replicas, leaders = map[base.BrokerID]int{}, map[base.BrokerID]int{}
	for _, s := range states {
		leaders[s.Replicas[0]]++
		for _, id := range s.Replicas {
			replicas[id]++
		}
	}
	return replicas, leaders
}

func TestPlanMoves(t *testing.T) {
	for _, racks := range []int{1, 3} {
		var brokers []Broker
		c := Cluster{}
		for id := base.BrokerID(1); id <= 6; id++ {
			brokers = append(brokers, Broker{ID: id, Rack: fmt.Sprint(int(id) % racks)})
			c[id] = Live
		}
		var states []State
		for _, r := range Place(brokers[:5], 300, 3) {
			states = append(states, State{Replicas: r, ISR: r, Leader: r[0]})
		}
		check := func(what string, without base.BrokerID) {
			t.Helper()
			replicas, leaders := loads(states)
			for id := base.BrokerID(1); id <= 6; id++ {
				if id == without {
					if replicas[id] != 0 {
						t.Errorf("%s: broker %d still holds %d", what, id, replicas[id])
					}
					continue
				}
				for other := base.BrokerID(1); other <= 6; other++ {
					if other != without && (replicas[id]-replicas[other] > slack(replicas[id]) || leaders[id]-leaders[other] > slack(leaders[id])) {
						t.Errorf("%s: replicas %v, leaders %v", what, replicas, leaders)
						return
					}
				}
			}
		}
		n := rounds(t, states, brokers, c, 20)
		check(fmt.Sprintf("%d racks, a new broker, %d rounds", racks, n), 0)
		if racks > 1 {
			continue // without one of six the racks cannot all be even
		}
		c[3] = Draining
		rounds(t, states, brokers, c, 20)
		check("drained", 3)
		c[3] = Live
		rounds(t, states, brokers, c, 20)
		check("filled again", 0)
	}
}

// What an operator placed stays where it is as long as it makes no great difference; a factor adds replicas.
func TestPlanMovesLeavesSmallThingsAlone(t *testing.T) {
	brokers, c := []Broker{{ID: 1}, {ID: 2}, {ID: 3}}, Cluster{1: Live, 2: Live, 3: Live}
	two := []base.BrokerID{1, 2}
	var states []State
	for range 6 {
		states = append(states, State{Replicas: two, ISR: two, Leader: 1})
	}
	if moves := PlanMoves(states, nil, brokers, c, 10, true); len(moves) != 0 {
		t.Errorf("moves %v", moves)
	}
	if moves := PlanMoves(states, []int{0, 3, 2}, brokers, c, 10, true); fmt.Sprint(moves) != "[{1 [1 2 3]}]" {
		t.Errorf("moves %v", moves)
	}
}

func TestPlanMovesWaits(t *testing.T) {
	c := Cluster{1: Live, 2: Live, 3: Draining}
	brokers := []Broker{{ID: 1}, {ID: 2}, {ID: 3}}
	states := []State{
		{Replicas: []base.BrokerID{3}, ISR: []base.BrokerID{3}, Leader: 3},
		{Replicas: []base.BrokerID{1, 3}, Adding: []base.BrokerID{1}, Removing: []base.BrokerID{3}, ISR: []base.BrokerID{3}, Leader: 3},
	}
	if moves := PlanMoves(states, nil, brokers, c, 1, true); len(moves) != 0 {
		t.Errorf("a reassignment is under way: %v", moves)
	}
	if moves := PlanMoves(states, nil, brokers, c, 2, true); fmt.Sprint(moves) != "[{0 [2]}]" {
		t.Errorf("moves %v", moves)
	}
}

func TestPlanLeaders(t *testing.T) {
	two := []base.BrokerID{1, 2}
	states := []State{
		{Replicas: two, ISR: two, Leader: 2},
		{Replicas: two, ISR: two, Leader: 1},
		{Replicas: two, ISR: []base.BrokerID{2}, Leader: 2},
		{Replicas: two, ISR: two, Leader: 2},
	}
	f := func(c Cluster, limit int, want string) {
		t.Helper()
		if got := fmt.Sprint(PlanLeaders(states, c, limit)); got != want {
			t.Errorf("%v, limit %d: %s, want %s", c, limit, got, want)
		}
	}
	f(Cluster{1: Live, 2: Live}, 10, "[0 3]")
	f(Cluster{1: Live, 2: Live}, 1, "[0]")
	f(Cluster{1: Draining, 2: Live}, 10, "[]")
}
