package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// AlterPartitionReassignments (45), versions 0-1 (KIP-455).
//
//   - The replicas that a partition has are accepted and change nothing. A list that names a broker twice, one that is not
//     registered, or none at all is 39, in the words of ReplicationControlManager.validateManualPartitionAssignment.
//   - Null replicas cancel a reassignment, of which there is never one: 85.
//   - Other registered brokers are 39 too: nothing moves replicas yet. With one broker there are none.
//
// v1 AllowReplicationFactorChange (KIP-860), which is echoed.
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
	img := s.deps.meta.Image()
	for _, t := range req.Topics {
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = t.Topic
		for _, q := range t.Partitions {
			err := s.reassign(img, base.TopicPartition{Topic: t.Topic, Partition: q.Partition}, q.Replicas)
			p := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			p.Partition = q.Partition
			p.ErrorCode = r.code(err)
			if p.ErrorCode != kerr.NoReassignmentInProgress.Code { // Kafka's has no message
				p.ErrorMessage = messageOf(err)
			}
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// reassign says why a partition cannot have these replicas; nil where it has them.
func (s *Server) reassign(img image, tp base.TopicPartition, replicas []int32) error {
	if _, ok := img.Topic(tp.Topic); !ok {
		return refuse(kerr.UnknownTopicOrPartition, "Unable to find a topic named "+tp.Topic+".")
	}
	p, ok := img.Partition(tp)
	switch {
	case !ok:
		return refuse(kerr.UnknownTopicOrPartition, fmt.Sprintf("Unable to find partition %s:%d.", tp.Topic, tp.Partition))
	case replicas == nil:
		return kerr.NoReassignmentInProgress
	case len(replicas) == 0:
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	if err := s.checkReplicas(img, replicas); err != nil {
		return err
	}
	same := func(a base.BrokerID, b int32) bool { return int32(a) == b }
	if !slices.EqualFunc(p.Replicas, replicas, same) {
		return refuse(kerr.InvalidReplicaAssignment, "Replicas cannot be moved between brokers yet.")
	}
	return nil
}

// checkReplicas looks for repeated and unknown brokers, lowest id first, as Kafka does.
func (s *Server) checkReplicas(img image, replicas []int32) error {
	brokers := s.brokers(img)
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
