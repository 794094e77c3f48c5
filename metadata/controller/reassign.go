package controller

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// Reassigning reports whether the partition is on its way to other replicas.
func (s *State) Reassigning() bool { return len(s.Adding) > 0 || len(s.Removing) > 0 }

// Origin is the replicas without those that a reassignment adds: what a cancelled one leaves.
func (s *State) Origin() []base.BrokerID { return without(s.Replicas, s.Adding) }

// Target is the replicas without those that a reassignment removes: what a completed one leaves.
func (s *State) Target() []base.BrokerID { return without(s.Replicas, s.Removing) }

// Reassign starts to move a partition to other replicas, the preferred leader first (KIP-455); a reassignment that is under
// way is replaced by it, and what that one added is dropped unless it is wanted again. It completes at once where nothing
// has to be copied. The caller has checked that the target's brokers are registered and that none is named twice.
//
// kerr.InvalidReplicaAssignment where the target is empty or where the replicas that would be dropped are all that is in
// sync: that would be an unclean election.
func Reassign(s State, target []base.BrokerID, c Cluster, r Rules) (State, error) {
	if len(target) == 0 {
		return s, fmt.Errorf("reassignment to no replicas: %w", kerr.InvalidReplicaAssignment)
	}
	origin := s.Origin()
	n := s
	n.Adding, n.Removing = without(target, origin), without(origin, target)
	n.Replicas = slices.Concat(target, n.Removing)
	return restrict(s, n, c, r)
}

// CancelReassignment goes back to the replicas from before: kerr.NoReassignmentInProgress where there is none,
// kerr.InvalidReplicaAssignment where none of them is in sync any more.
func CancelReassignment(s State, c Cluster, r Rules) (State, error) {
	if !s.Reassigning() {
		return s, kerr.NoReassignmentInProgress
	}
	n := s
	n.Replicas, n.Adding, n.Removing = s.Origin(), nil, nil
	return restrict(s, n, c, r)
}

// restrict takes replicas that are gone out of ISR, ELR and leadership, and settles the rest.
func restrict(s, n State, c Cluster, r Rules) (State, error) {
	held := func(id base.BrokerID) bool { return slices.Contains(n.Replicas, id) }
	intact := func(id base.BrokerID) bool { return c[id] != Wiped }
	n.ISR, n.ELR = keep(n.ISR, held), keep(n.ELR, held)
	if len(keep(n.ISR, intact)) == 0 && len(keep(s.ISR, intact)) > 0 {
		return s, fmt.Errorf("none of the replicas %v that would remain is in the ISR %v: %w", n.Replicas, s.ISR, kerr.InvalidReplicaAssignment)
	}
	if !held(n.Leader) {
		n.Leader = NoLeader
	}
	n, _ = Next(n, c, r)
	n.LeaderEpoch, n.PartitionEpoch = s.LeaderEpoch, s.PartitionEpoch
	n, _ = follow(&s, n)
	return n, nil
}

// completeReassignment drops the replicas that a reassignment removes, once all that it adds are in sync. Unlike Kafka it
// also waits until enough of those that stay are in sync and alive for produce requests to go on.
func completeReassignment(s *State, c Cluster, r Rules) {
	if !s.Reassigning() || len(without(s.Adding, s.ISR)) > 0 {
		return
	}
	target := s.Target()
	isr := without(s.ISR, s.Removing)
	alive := keep(isr, func(id base.BrokerID) bool { return c[id].Alive() })
	if len(alive) < EffectiveMinISR(r.MinISR, len(target)) {
		return
	}
	s.Replicas, s.ISR, s.ELR = target, isr, without(s.ELR, s.Removing)
	s.Adding, s.Removing = nil, nil
}
