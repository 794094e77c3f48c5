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
	Fenced   bool   // gets a replica only where there are not enough others, and never the preferred one if it can be helped
}

// Place chooses replicas, the preferred leader first, for a number of partitions: leaders and replicas spread over brokers
// by what they carry, and the replicas of one partition over as many racks as there are, fenced brokers last (Kafka's
// StripedReplicaPlacer has the same aims). It returns nil where there are fewer brokers than replicas. The result follows
// from the arguments alone.
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
		b := pick(carried, chosen, racks, len(chosen) == 0)
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

// pick returns the broker that should get the next replica of a partition, nil where all have one.
func pick(carried []Broker, taken []base.BrokerID, racks map[string]int, leader bool) *Broker {
	var best *Broker
	for i := range carried {
		b := &carried[i]
		if !slices.Contains(taken, b.ID) && (best == nil || better(b, best, racks, leader)) {
			best = b
		}
	}
	return best
}

// better reports whether a should get the next replica rather than b.
func better(a, b *Broker, racks map[string]int, leader bool) bool {
	if a.Fenced != b.Fenced {
		return b.Fenced
	}
	if leader {
		return cmp.Or(cmp.Compare(a.Leaders, b.Leaders), cmp.Compare(a.Replicas, b.Replicas), cmp.Compare(a.ID, b.ID)) < 0
	}
	return cmp.Or(cmp.Compare(racks[a.Rack], racks[b.Rack]), cmp.Compare(a.Replicas, b.Replicas), cmp.Compare(a.ID, b.ID)) < 0
}
