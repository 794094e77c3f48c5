// Package controller holds the controller's decisions as pure functions: where replicas go. It imports nothing of ours but
// the identifiers, so that package metadata can call it.
package controller

import (
	"cmp"
	"slices"

	"github.com/varvelog/varve/internal/base"
)

// Broker is a candidate for replicas, and what it carries already.
type Broker struct {
	ID       base.BrokerID
	Rack     string // empty: none
	Leaders  int    // partitions whose preferred leader it is
	Replicas int    // partitions that it holds
}

// Place chooses replicas, the preferred leader first, for a number of partitions: leaders and replicas spread over brokers
// by what they carry, and the replicas of one partition over as many racks as there are. It returns nil where there are
// fewer brokers than replicas. The result follows from the arguments alone.
func Place(brokers []Broker, partitions, replicas int) [][]base.BrokerID {
	if replicas < 1 || replicas > len(brokers) {
		return nil
	}
	carried := slices.Clone(brokers)
	out := make([][]base.BrokerID, partitions)
	for p := range out {
		out[p] = placeOne(carried, replicas)
	}
	return out
}

func placeOne(carried []Broker, replicas int) []base.BrokerID {
	chosen := make([]base.BrokerID, 0, replicas)
	racks := map[string]int{}
	for len(chosen) < replicas {
		best := -1
		for i := range carried {
			if slices.Contains(chosen, carried[i].ID) {
				continue
			}
			if best < 0 || better(&carried[i], &carried[best], racks, len(chosen) == 0) {
				best = i
			}
		}
		b := &carried[best]
		if len(chosen) == 0 {
			b.Leaders++
		}
		b.Replicas++
		if b.Rack != "" {
			racks[b.Rack]++
		}
		chosen = append(chosen, b.ID)
	}
	return chosen
}

// better reports whether a should get the next replica rather than b.
func better(a, b *Broker, racks map[string]int, leader bool) bool {
	if leader {
		return cmp.Or(cmp.Compare(a.Leaders, b.Leaders), cmp.Compare(a.Replicas, b.Replicas), cmp.Compare(a.ID, b.ID)) < 0
	}
	return cmp.Or(cmp.Compare(racks[a.Rack], racks[b.Rack]), cmp.Compare(a.Replicas, b.Replicas), cmp.Compare(a.ID, b.ID)) < 0
}
