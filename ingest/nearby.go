package ingest

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// Served finds a partition that a consumer may read from here: one that this broker leads, or, with follower, one that it follows
// (KIP-392). id is the topic's, zero: whichever has the name. Errors as Partition's, and kerr.UnknownTopicID where the name is of another.
func (g *Ingest) Served(tp base.TopicPartition, id base.TopicID, follower bool) (*Partition, error) {
	p, err := g.partitionOf(tp, id)
	if err == nil || !follower {
		return p, err
	}
	state, unknown := g.shown(tp, id)
	if unknown != nil || !slices.Contains(state.Replicas, g.opts.Broker) {
		return nil, err
	}
	if p = g.byLog(state.Log); p == nil {
		return nil, err
	}
	return p, nil
}

// Serve looks at the partition for a consumer that knows a leader epoch (< 0: none, KIP-320). With follower it may be one that this
// broker follows: then what it knows to be committed is served.
func (p *Partition) Serve(current base.LeaderEpoch, follower bool) (View, error) {
	if err := p.CheckEpoch(current); err == nil || !follower {
		if err != nil {
			return View{}, err
		}
		return p.View()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	switch {
	case m.leader != nil || m.damaged || m.dropped || m.following < 0:
		return View{}, p.wrap(kerr.NotLeaderForPartition)
	case current >= 0 && current < m.following:
		return View{}, fmt.Errorf("partition %s: epoch %d, current %d: %w", m.tp, current, m.following, kerr.FencedLeaderEpoch)
	case current > m.following:
		return View{}, fmt.Errorf("partition %s: epoch %d, current %d: %w", m.tp, current, m.following, kerr.UnknownLeaderEpoch)
	}
	return p.viewLocked(), nil
}

// Nearest is the replica in the rack, other than this leader, that has everything below an offset, and of several the one that
// has the most; -1 where there is none, or the leader is there itself (Kafka's RackAwareReplicaSelector).
func (p *Partition) Nearest(rack string, from base.Offset) base.BrokerID {
	racks := map[base.BrokerID]string{}
	for _, b := range p.g.opts.Meta.Image().Brokers() {
		if b.Rack != nil {
			racks[b.ID] = *b.Rack
		}
	}
	best, most := base.BrokerID(-1), from
	if racks[p.g.opts.Broker] == rack {
		return best
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.leader != nil {
		p.mu.leader.Ends(func(id base.BrokerID, end base.Offset) {
			if racks[id] == rack && end >= most && (best < 0 || end > most) {
				best, most = id, end
			}
		})
	}
	return best
}
