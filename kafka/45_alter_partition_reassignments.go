package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
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
	var list []metadata.Reassignment
	for _, t := range req.Topics {
		s.meet(ctx, t.Topic)
		for _, p := range t.Partitions {
			tp := base.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			list = append(list, metadata.Reassignment{TP: tp, Target: idsOf(p.Replicas), KeepFactor: !resp.AllowReplicationFactorChange})
		}
	}
	img := s.deps.meta.Image()
	errs := s.deps.meta.ReassignMany(ctx, list)
	for _, t := range req.Topics {
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = t.Topic
		for _, q := range t.Partitions {
			p := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			p.Partition = q.Partition
			err := reassignError(img, list[0], errs[0])
			list, errs = list[1:], errs[1:]
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

// reassignError puts what the Store says into Kafka's words, where those are others.
func reassignError(img image, r metadata.Reassignment, err error) error {
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		if _, ok := img.Topic(r.TP.Topic); !ok {
			return refuse(kerr.UnknownTopicOrPartition, "Unable to find a topic named "+r.TP.Topic+".")
		}
		return refuse(kerr.UnknownTopicOrPartition, fmt.Sprintf("Unable to find partition %s:%d.", r.TP.Topic, r.TP.Partition))
	case r.Target == nil && errors.Is(err, kerr.InvalidReplicaAssignment):
		return refuse(kerr.InvalidReplicaAssignment, fmt.Sprintf(
			"Unable to revert partition assignment for %s:%d because it would require an unclean leader election.", r.TP.Topic, r.TP.Partition))
	}
	return err
}

// idsOf is the inverse of brokerIDs; nil stays nil.
func idsOf(ids []int32) []base.BrokerID {
	if ids == nil {
		return nil
	}
	out := make([]base.BrokerID, len(ids))
	for i, id := range ids {
		out[i] = base.BrokerID(id)
	}
	return out
}
