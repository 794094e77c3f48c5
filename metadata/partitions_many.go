package metadata

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata/controller"
)

// Reassignment is what Reassign and CancelReassignment are told of one partition.
type Reassignment struct {
	TP         base.TopicPartition
	Target     []base.BrokerID // nil: go back to the replicas from before
	KeepFactor bool            // refuse another number of replicas than there are, or will be (KIP-860)
}

// ReassignMany does what Reassign and CancelReassignment do, for many partitions in few transactions. A partition that stands in
// the list more than once is moved in the order of the list. The errors are theirs, by index, and kerr.InvalidReplicationFactor.
func (s *Store) ReassignMany(ctx context.Context, list []Reassignment) []error {
	return s.changeStates(ctx, "reassign", len(list), func(n int) base.TopicPartition { return list[n].TP },
		func(i *Image, n int, p *Partition) (controller.State, error) {
			state := p.State()
			if list[n].Target == nil {
				return controller.CancelReassignment(state, i.Cluster(nil), i.Rules(p))
			}
			if err := i.checkReplicas(list[n].Target, len(list[n].Target)); err != nil {
				return state, err
			}
			if has, want := len(state.Target()), len(list[n].Target); list[n].KeepFactor && has != want {
				return state, refuse(kerr.InvalidReplicationFactor, "The replication factor is changed from %d to %d", has, want)
			}
			return controller.Reassign(state, list[n].Target, i.Cluster(nil), i.Rules(p))
		})
}

// ElectLeaders does what ElectLeader does, for many partitions in few transactions. The errors are its, by index.
func (s *Store) ElectLeaders(ctx context.Context, tps []base.TopicPartition, unclean bool) []error {
	return s.changeStates(ctx, "elect leaders", len(tps), func(n int) base.TopicPartition { return tps[n] },
		func(i *Image, _ int, p *Partition) (controller.State, error) {
			if unclean {
				return controller.ElectUnclean(p.State(), i.Cluster(nil), i.Rules(p))
			}
			return controller.ElectPreferred(p.State(), i.Cluster(nil))
		})
}

// changeStates applies pure changes to partitions, as many in a transaction as fit. One by one, thousands would take as many
// syncs, and every broker would look at all partitions of the topic after each.
func (s *Store) changeStates(ctx context.Context, what string, count int, tp func(n int) base.TopicPartition, change func(i *Image, n int, p *Partition) (controller.State, error)) []error {
	errs := make([]error, count)
	var chunk []int
	seen := map[base.TopicPartition]struct{}{}
	flush := func() {
		s.changeChunk(ctx, what, chunk, errs, tp, change)
		chunk = chunk[:0]
		clear(seen)
	}
	for n := range count {
		if _, again := seen[tp(n)]; again || len(chunk) == changesPerTxn {
			flush()
		}
		seen[tp(n)] = struct{}{}
		chunk = append(chunk, n)
	}
	flush()
	return errs
}

// changeChunk changes some partitions, each of which is named once, in one transaction; where that does not hold, one by one.
func (s *Store) changeChunk(ctx context.Context, what string, chunk []int, errs []error, tp func(n int) base.TopicPartition, change func(i *Image, n int, p *Partition) (controller.State, error)) {
	image := s.Image()
	var cmps []Cmp
	var ops []Op
	var leaders []base.BrokerID
	var changed []int
	for _, n := range chunk {
		p, ok := image.Partition(tp(n))
		if !ok {
			errs[n] = refuse(kerr.UnknownTopicOrPartition, "%s", kerr.UnknownTopicOrPartition.Description)
			continue
		}
		var next controller.State
		if next, errs[n] = change(image, n, p); errs[n] != nil || next.PartitionEpoch == p.PartitionEpoch {
			continue
		}
		if leader, ok := image.brokers[next.Leader]; ok && next.Leader != p.Leader && !slices.Contains(leaders, leader.ID) {
			leaders = append(leaders, leader.ID) // still not fenced
			cmps = append(cmps, Unchanged(brokerKey(leader.ID), leader.Rev))
		}
		after := *p
		after.set(next)
		key := partitionKey(p.TopicID, p.TP.Partition)
		cmps = append(cmps, Unchanged(key, p.Rev))
		ops = append(ops, Put(key, encode(after.record())))
		changed = append(changed, n)
	}
	if len(changed) == 0 {
		return
	}
	var committed bool
	var err error
	if len(cmps) <= MaxTxnOps { // else of many brokers
		committed, err = s.write(ctx, what, cmps, ops)
	}
	for _, n := range changed {
		switch {
		case err != nil:
			errs[n] = err
		case !committed:
			errs[n] = s.changeState(ctx, what, tp(n), func(i *Image, p *Partition) (controller.State, error) { return change(i, n, p) })
		}
	}
}
