package controller

import (
	"fmt"
	"slices"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

func TestPlace(t *testing.T) {
	f := func(brokers []Broker, partitions, replicas int, want string) {
		t.Helper()
		if got := fmt.Sprint(Place(brokers, partitions, replicas)); got != want {
			t.Errorf("Place(%v, %d, %d) = %s, want %s", brokers, partitions, replicas, got, want)
		}
	}
	one := []Broker{{ID: 1}}
	three := []Broker{{ID: 1}, {ID: 2}, {ID: 3}}
	racks := []Broker{{ID: 1, Rack: "a"}, {ID: 2, Rack: "a"}, {ID: 3, Rack: "b"}, {ID: 4, Rack: "b"}}
	f(one, 2, 1, "[[1] [1]]")
	f(one, 1, 2, "[]")
	f(three, 3, 1, "[[1] [2] [3]]")
	f(three, 3, 3, "[[1 2 3] [2 1 3] [3 1 2]]")
	f([]Broker{{ID: 1, Leaders: 2, Replicas: 2}, {ID: 2}}, 3, 1, "[[2] [2] [1]]")
	f(racks, 2, 2, "[[1 3] [2 4]]")
	f([]Broker{{ID: 1, Fenced: true}, {ID: 2, Leaders: 5, Replicas: 5}, {ID: 3, Leaders: 9, Replicas: 9}}, 1, 3, "[[2 3 1]]")
	f([]Broker{{ID: 1, Fenced: true}, {ID: 2}, {ID: 3}}, 2, 2, "[[2 3] [3 2]]")
}

func TestPlaceSpreads(t *testing.T) {
	for brokers := 1; brokers <= 7; brokers++ {
		for replicas := 1; replicas <= brokers; replicas++ {
			var candidates []Broker
			for id := range brokers {
				candidates = append(candidates, Broker{ID: base.BrokerID(id), Rack: fmt.Sprint(id % 3)})
			}
			leaders, held := make([]int, brokers), make([]int, brokers)
			for _, r := range Place(candidates, 100, replicas) {
				distinct := map[base.BrokerID]bool{}
				racks := map[string]bool{}
				for n, id := range r {
					distinct[id] = true
					racks[candidates[id].Rack] = true
					held[id]++
					if n == 0 {
						leaders[id]++
					}
				}
				if len(distinct) != replicas || len(racks) < min(replicas, 3, brokers) {
					t.Fatalf("%d brokers, %d replicas: %v", brokers, replicas, r)
				}
			}
			if slices.Max(leaders)-slices.Min(leaders) > 1 {
				t.Errorf("%d brokers, %d replicas: leaders %v", brokers, replicas, leaders)
			}
		}
	}
}
