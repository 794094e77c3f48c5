package replica

import (
	"slices"

	"github.com/varvelog/varve/internal/base"
)

// Proposal is a change of the ISR that the leader wants. It is written once, with a compare on the partition's key being at Rev
// and, for each broker that is added, on its registration being unfenced and of that epoch. One is in flight per partition:
// until it is settled the leader counts the ISR of before and the proposed one (the maximal ISR, KIP-497).
//
// What settles it is the key at a later revision (Update: of its own commit, of an image, or as read when the compare failed) or
// a definite refusal (Refused). A time-out is neither (Unknown).
type Proposal struct {
	Rev   int64
	Epoch base.LeaderEpoch
	ISR   []base.BrokerID // in the order of the assignment
	Added []Member
}

// Member is a broker and the epoch of its registration.
type Member struct {
	ID          base.BrokerID
	BrokerEpoch int64
}

// Refused says that the proposal based on rev was answered and not written; current is the key as the same transaction read it. Where the key
// has moved on, that is an Update: the proposal may have been what moved it. Where it has not, a broker that was to be added is
// fenced or has registered anew, and the leader proposes again from the next tick on.
//
// NB: after Unknown a refusal settles nothing, nor does a late one of an earlier proposal: another write may still arrive.
func (l *Leader) Refused(rev int64, current State) Effects {
	if l.pending != nil && l.pending.Rev == rev && current.Rev == rev && !l.unknown {
		l.pending, l.refused = nil, true
	}
	return l.Update(current)
}

// Unknown says that the write of the proposal based on rev was not answered: it may have happened, or may still. The effects hold a
// write of the ISR as it is, with the same compare. Whichever comes first moves the key, so that the other is void; until that is
// seen the leader counts both.
func (l *Leader) Unknown(rev int64) Effects {
	if l.pending == nil || l.pending.Rev != rev {
		return l.effects()
	}
	l.unknown = true
	e := l.effects() // proposes nothing: one is pending
	e.Proposal = &Proposal{Rev: rev, Epoch: l.state.Epoch, ISR: l.state.ISR}
	return e
}

// Pending is the proposal in flight, nil for none.
func (l *Leader) Pending() *Proposal { return l.pending }

// expansion proposes a follower that has caught up (Partition.maybeExpandIsr). That its end reaches the high watermark is not
// enough: a new leader's may lag behind what its predecessor acknowledged, but the start of the leader's epoch does not. Nor is
// that: where all followers are stuck the high watermark waits for them.
func (l *Leader) expansion() *Proposal {
	if !l.mayPropose() || len(l.state.ISR) == len(l.followers)+1 {
		return nil
	}
	joins := func(f *follower) bool {
		return !slices.Contains(l.state.ISR, f.id) && l.eligible(f) && f.end >= l.highWater && f.end >= l.epochStart && l.caughtUp(f)
	}
	i := slices.IndexFunc(l.followers, func(f follower) bool { return joins(&f) })
	if i < 0 {
		return nil
	}
	var added []Member
	for i := range l.followers {
		if f := &l.followers[i]; joins(f) {
			added = append(added, Member{f.id, f.brokerEpoch})
		}
	}
	in := func(id base.BrokerID) bool {
		return slices.Contains(l.state.ISR, id) || slices.ContainsFunc(added, func(m Member) bool { return m.ID == id })
	}
	return l.propose(in, added...)
}

// shrink proposes an ISR without those that have not caught up for LagMax (Partition.maybeShrinkIsr). The leader stays in.
func (l *Leader) shrink() *Proposal {
	lags := func(id base.BrokerID) bool {
		i := indexOf(l.followers, id)
		return i >= 0 && !l.caughtUp(&l.followers[i])
	}
	if !l.mayPropose() || !slices.ContainsFunc(l.state.ISR, lags) {
		return nil
	}
	return l.propose(func(id base.BrokerID) bool { return slices.Contains(l.state.ISR, id) && !lags(id) })
}

func (l *Leader) mayPropose() bool { return l.pending == nil && !l.refused }

// propose notes and returns the proposal of the replicas that in accepts.
func (l *Leader) propose(in func(base.BrokerID) bool, added ...Member) *Proposal {
	p := &Proposal{Rev: l.state.Rev, Epoch: l.state.Epoch, Added: added}
	for _, id := range l.state.Replicas {
		if in(id) {
			p.ISR = append(p.ISR, id)
		}
	}
	l.pending, l.unknown = p, false
	return p
}

// counts reports whether the replica is in the maximal ISR.
func (l *Leader) counts(id base.BrokerID) bool {
	return slices.Contains(l.state.ISR, id) || l.pending != nil && slices.Contains(l.pending.ISR, id)
}

// caughtUp is ReplicaState.isCaughtUp.
func (l *Leader) caughtUp(f *follower) bool {
	return f.end == l.end || l.now.Sub(f.lastCaughtUp) <= l.lagMax
}

// eligible reports whether the broker may join the ISR: unfenced, with room, the incarnation that fetched, and not just taken out of it: the
// controller alone knows who shuts down, and would take it out again.
func (l *Leader) eligible(f *follower) bool {
	b, unfenced := l.live[f.id]
	return unfenced && !b.Full && b.Epoch == f.brokerEpoch && !f.dismissed
}
