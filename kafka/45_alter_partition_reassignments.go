package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// AlterPartitionReassignments (45), versions 0-1 (KIP-455).
//
//   - The answer comes when the reassignments have started; the controller completes them, some at once. One that is under way
//     is replaced by the new one.
//   - A list that names a broker twice, one that is not registered, or none at all is 39, in the words of
//     ReplicationControlManager.validateManualPartitionAssignment. A fenced broker may be named, as in Kafka.
//   - Null replicas cancel a reassignment: 85 where there is none, 39 where only an unclean election could.
//   - Each partition is decided alone: one that is refused does not keep the others from moving.
//
// v1 AllowReplicationFactorChange (KIP-860), which is echoed: without it, another number of replicas than a partition has, or
// is on its way to, is 38.
func handleAlterPartitionReassignments(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = true
	if len(req.Topics) == 0 {
		resp.ErrorMessage = text("") // Kafka sends the defaults of the schema
		return resp, nil
	}
	if req.Version >= 1 {
		resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	}
	ctx, cancel := s.requestTimeout(req.TimeoutMillis)
	defer cancel()
	var tps []base.TopicPartition
	var targets [][]int32
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			tps = append(tps, base.TopicPartition{Topic: t.Topic, Partition: p.Partition})
			targets = append(targets, p.Replicas)
		}
	}
	errs := changePartitions(tps, func(i int) error {
		return s.reassign(ctx, tps[i], targets[i], resp.AllowReplicationFactorChange)
	})
	for _, t := range req.Topics {
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = t.Topic
		for _, q := range t.Partitions {
			p := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			p.Partition = q.Partition
			p.ErrorCode = r.code(errs[0])
			if p.ErrorCode != kerr.NoReassignmentInProgress.Code { // Kafka's has no message
				p.ErrorMessage = messageOf(errs[0])
			}
			errs = errs[1:]
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// reassign starts to move a partition to other replicas, or, where they are nil, ends that.
func (s *Server) reassign(ctx context.Context, tp base.TopicPartition, replicas []int32, otherFactor bool) error {
	img := s.deps.meta.Image()
	if _, ok := img.Topic(tp.Topic); !ok {
		return refuse(kerr.UnknownTopicOrPartition, "Unable to find a topic named "+tp.Topic+".")
	}
	p, ok := img.Partition(tp)
	switch {
	case !ok:
		return refuse(kerr.UnknownTopicOrPartition, fmt.Sprintf("Unable to find partition %s:%d.", tp.Topic, tp.Partition))
	case replicas == nil:
		err := s.deps.meta.CancelReassignment(ctx, tp)
		if errors.Is(err, kerr.InvalidReplicaAssignment) {
			return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf(
				"Unable to revert partition assignment for %s:%d because it would require an unclean leader election.", tp.Topic, tp.Partition))
		}
		return err
	}
	if err := checkReplicas(img, replicas); err != nil {
		return err
	}
	// The Store does not know this rule. That the partition changes meanwhile is the race of two operators.
	state := p.State()
	if has := len(state.Target()); !otherFactor && len(replicas) != has {
		return refuse(kerr.InvalidReplicationFactor, fmt.Sprintf("The replication factor is changed from %d to %d", has, len(replicas)))
	}
	target := make([]base.BrokerID, len(replicas))
	for i, id := range replicas {
		target[i] = base.BrokerID(id)
	}
	return s.deps.meta.Reassign(ctx, tp, target)
}

// checkReplicas looks for no brokers, repeated and unknown ones, lowest id first, as Kafka does.
func checkReplicas(img image, replicas []int32) error {
	if len(replicas) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	brokers := img.AllBrokers()
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		if !slices.ContainsFunc(brokers, func(b metadataBroker) bool { return int32(b.ID) == id }) {
			return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf("The manual partition assignment includes broker %d, but no such broker is registered.", id))
		}
		if i > 0 && sorted[i-1] == id {
			return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf("The manual partition assignment includes the broker %d more than once.", id))
		}
	}
	return nil
}
