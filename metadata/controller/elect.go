package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// NoLeader stands where a partition has no leader.
const NoLeader base.BrokerID = -1

// State is what the controller decides about a partition. States share slices: they are replaced, never changed.
type State struct {
	Replicas         []base.BrokerID // the preferred leader first; with those that a reassignment adds and removes
	ISR, ELR         []base.BrokerID
	Adding, Removing []base.BrokerID // of a reassignment under way (KIP-455)
	Leader           base.BrokerID   // NoLeader: none
	LeaderEpoch      base.LeaderEpoch
	PartitionEpoch   int32 // grows with each change
}

// Status is what a broker may do. The zero value is that of a broker that nobody knows.
type Status uint8

// The statuses of a broker.
const (
	Fenced       Status = iota // leads nothing and leaves every ISR that has others
	Wiped                      // fenced, and back with another disk: leaves every ISR and ELR before it may return (I14)
	Leaving                    // alive and shutting down: leads only where nobody else can, leaves the ISR where that is safe
	FullDraining               // Full and Draining
	Full                       // alive, without room for records: leads only where nobody else can, leaves the ISR where that is safe
	Draining                   // alive, and to be emptied: leads only where nobody else can
	Live
)

// Alive reports whether a broker serves: only such brokers lead.
func (s Status) Alive() bool { return s >= Leaving }

// emptied reports whether a broker's replicas are to go elsewhere.
func (s Status) emptied() bool { return s == Draining || s == FullDraining }

// joins reports whether a broker may enter an ISR.
func (s Status) joins() bool { return s >= Draining }

// Cluster is the status of every broker.
type Cluster map[base.BrokerID]Status

// Rules are the settings of a topic that decide elections.
type Rules struct {
	MinISR  int  // min.insync.replicas
	Unclean bool // unclean.leader.election.enable
}

// EffectiveMinISR is min.insync.replicas as far as a partition can have it: Kafka's effective min ISR.
func EffectiveMinISR(minISR, replicas int) int { return max(1, min(minISR, replicas)) }

// Next returns the state that follows from who is alive, and whether it differs. It covers every event: a broker that was
// fenced, unfenced, or came back with another disk, one that shuts down or drains, a reassignment whose last replica caught
// up, and a changed min.insync.replicas. Its result needs no further Next with the same arguments.
//
// The order of election is KIP-966's: the ISR, then the ELR, then, where the topic allows it, any live replica.
func Next(s State, c Cluster, r Rules) (State, bool) {
	if settled(&s, c, r) {
		return s, false
	}
	n := s
	decide(&n, c, r)
	if n.Reassigning() {
		decide(&n, c, r) // an election can be what a reassignment waited for
	}
	return follow(&s, n)
}

func decide(s *State, c Cluster, r Rules) {
	completeReassignment(s, c, r)
	isr, unclean := nextISR(s, c, r)
	s.ELR = nextELR(s, isr, c, r, unclean)
	s.ISR = isr
	s.Leader = chooseLeader(s, c)
}

// Restart is Next after the broker that led registered anew: whoever leads now, does so in a new epoch, which fences what
// the former incarnation may still have under way.
func Restart(s State, id base.BrokerID, c Cluster, r Rules) (State, bool) {
	if s.Leader != id {
		return Next(s, c, r)
	}
	deposed := s
	deposed.Leader = NoLeader
	n, _ := Next(deposed, c, r)
	n.LeaderEpoch, n.PartitionEpoch = s.LeaderEpoch+1, s.PartitionEpoch+1
	return n, true
}

// ElectPreferred makes the first replica the leader: kerr.ElectionNotNeeded where it is, kerr.PreferredLeaderNotAvailable
// where it is not alive and in sync.
func ElectPreferred(s State, c Cluster) (State, error) {
	first := s.Replicas[0]
	switch {
	case s.Leader == first:
		return s, kerr.ElectionNotNeeded
	case c[first] != Live || !slices.Contains(s.ISR, first):
		return s, kerr.PreferredLeaderNotAvailable
	}
	n := s
	n.Leader = first
	n, _ = follow(&s, n)
	return n, nil
}

// ElectUnclean makes a live replica the leader of a partition that has none, whatever it lacks: committed records may be
// lost. kerr.ElectionNotNeeded where there is a live leader, kerr.EligibleLeadersNotAvailable where no replica is alive.
func ElectUnclean(s State, c Cluster, r Rules) (State, error) {
	if s.Leader != NoLeader && c[s.Leader].Alive() {
		return s, kerr.ElectionNotNeeded
	}
	r.Unclean = true
	n, _ := Next(s, c, r)
	if n.Leader == NoLeader {
		return s, kerr.EligibleLeadersNotAvailable
	}
	return n, nil
}

// settled answers for most partitions, and without allocating, that Next would change nothing.
func settled(s *State, c Cluster, r Rules) bool {
	if s.Leader == NoLeader || len(s.ELR) > 0 || len(s.Adding) > 0 || len(s.Removing) > 0 || !slices.Contains(s.ISR, s.Leader) {
		return false
	}
	for _, id := range s.ISR {
		if c[id] != Live {
			return false
		}
	}
	return true
}

// follow gives a new state its epochs, and reports whether it differs from the old one. The leader epoch grows with each
// change of the leader, and where replicas go: those must not be fetched for any more.
func follow(old *State, n State) (State, bool) {
	moved := old.Leader != n.Leader
	gone := slices.ContainsFunc(old.Replicas, func(id base.BrokerID) bool { return !slices.Contains(n.Replicas, id) })
	if !moved && !gone && slices.Equal(old.Replicas, n.Replicas) && slices.Equal(old.ISR, n.ISR) && slices.Equal(old.ELR, n.ELR) &&
		slices.Equal(old.Adding, n.Adding) && slices.Equal(old.Removing, n.Removing) {
		return *old, false
	}
	if moved || gone {
		n.LeaderEpoch++
	}
	n.PartitionEpoch++
	return n, true
}

// nextISR is who remains of the ISR, or the one that an election from outside of it makes the whole ISR. unclean: that one
// is not known to hold what was committed.
func nextISR(s *State, c Cluster, r Rules) (isr []base.BrokerID, unclean bool) {
	alive := keep(s.ISR, func(id base.BrokerID) bool { return c[id].Alive() })
	if len(alive) > 0 {
		return withoutIdle(alive, c, EffectiveMinISR(r.MinISR, len(s.Replicas))), false
	}
	if id, ok := best(s, s.ELR, c); ok {
		return []base.BrokerID{id}, false
	}
	if r.Unclean {
		if id, ok := best(s, s.Replicas, c); ok {
			return []base.BrokerID{id}, true
		}
	}
	return keep(s.ISR, func(id base.BrokerID) bool { return c[id] != Wiped }), false
}

// withoutIdle drops brokers that shut down or are full from an ISR as long as enough others remain for produce requests.
func withoutIdle(isr []base.BrokerID, c Cluster, enough int) []base.BrokerID {
	for status := Leaving; !status.joins(); status++ { // those first that will not be there any more
		for _, id := range isr {
			if c[id] == status && len(isr) > enough {
				isr = keep(isr, func(other base.BrokerID) bool { return other != id })
			}
		}
	}
	return isr
}

// nextELR is who, outside of an ISR that is too small, holds all that was committed: those that had to leave it since. None
// commits anything before the ISR is large enough, and then the ELR is empty again.
func nextELR(s *State, isr []base.BrokerID, c Cluster, r Rules, unclean bool) []base.BrokerID {
	if unclean || len(isr) >= EffectiveMinISR(r.MinISR, len(s.Replicas)) {
		return nil
	}
	var elr []base.BrokerID
	for _, id := range s.Replicas {
		held := slices.Contains(s.ISR, id) || slices.Contains(s.ELR, id)
		if held && !slices.Contains(isr, id) && c[id] != Wiped {
			elr = append(elr, id)
		}
	}
	return elr
}

// chooseLeader returns the present leader where it may stay, else the best of the ISR.
func chooseLeader(s *State, c Cluster) base.BrokerID {
	id, ok := best(s, s.ISR, c)
	switch {
	case !ok:
		return NoLeader
	case slices.Contains(s.ISR, s.Leader) && c[s.Leader] >= c[id]:
		return s.Leader
	default:
		return id
	}
}

// best is the live broker among candidates that should lead: by status, then those that stay after a reassignment, then in
// the order of preference.
func best(s *State, candidates []base.BrokerID, c Cluster) (base.BrokerID, bool) {
	found, rank := NoLeader, 0
	for _, id := range s.Replicas {
		if !c[id].Alive() || !slices.Contains(candidates, id) {
			continue
		}
		n := 2 * int(c[id])
		if !slices.Contains(s.Removing, id) {
			n++
		}
		if n > rank {
			found, rank = id, n
		}
	}
	return found, found != NoLeader
}

// keep returns the members for which ok holds, the same slice where that is all of them.
func keep(ids []base.BrokerID, ok func(base.BrokerID) bool) []base.BrokerID {
	if !slices.ContainsFunc(ids, func(id base.BrokerID) bool { return !ok(id) }) {
		return ids
	}
	var out []base.BrokerID
	for _, id := range ids {
		if ok(id) {
			out = append(out, id)
		}
	}
	return out
}

// without returns the members of a that are not in b.
func without(a, b []base.BrokerID) []base.BrokerID {
	return keep(a, func(id base.BrokerID) bool { return !slices.Contains(b, id) })
}
