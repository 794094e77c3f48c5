package controller

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// ISRChange is what a leader proposes (KIP-497's AlterPartition).
type ISRChange struct {
	Leader         base.BrokerID // who proposes
	LeaderEpoch    base.LeaderEpoch
	PartitionEpoch int32 // of the state that the leader saw
	ISR            []base.BrokerID
}

// ChangeISR returns the state after a leader's proposal. What leaves an ISR that becomes smaller than min.insync.replicas
// enters the ELR. The errors are those of AlterPartition: kerr.FencedLeaderEpoch, kerr.InvalidUpdateVersion (both: the
// state moved on, look again), kerr.InvalidRequest, and kerr.IneligibleReplica where a broker that joins is fenced, full
// or shuts down.
//
// The caller also makes sure that those which join are the incarnations that caught up (their broker epochs).
func ChangeISR(s State, p ISRChange, c Cluster, r Rules) (State, error) {
	switch {
	case p.LeaderEpoch != s.LeaderEpoch || p.Leader != s.Leader:
		return s, fmt.Errorf("ISR proposed by %d in epoch %d, led by %d in epoch %d: %w", p.Leader, p.LeaderEpoch, s.Leader, s.LeaderEpoch, kerr.FencedLeaderEpoch)
	case p.PartitionEpoch != s.PartitionEpoch:
		return s, fmt.Errorf("ISR proposed at partition epoch %d, which is %d: %w", p.PartitionEpoch, s.PartitionEpoch, kerr.InvalidUpdateVersion)
	case !slices.Contains(p.ISR, p.Leader):
		return s, fmt.Errorf("ISR %v without its leader %d: %w", p.ISR, p.Leader, kerr.InvalidRequest)
	}
	for n, id := range p.ISR {
		switch {
		case slices.Contains(p.ISR[:n], id), !slices.Contains(s.Replicas, id):
			return s, fmt.Errorf("ISR %v of replicas %v: %w", p.ISR, s.Replicas, kerr.InvalidRequest)
		case !slices.Contains(s.ISR, id) && !c[id].joins():
			return s, fmt.Errorf("broker %d cannot join an ISR now: %w", id, kerr.IneligibleReplica)
		}
	}
	n := s
	n.ELR = nextELR(&s, p.ISR, c, r, false)
	n.ISR = slices.Clone(p.ISR)
	n, _ = follow(&s, n)
	return n, nil
}
