package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// ListPartitionReassignments (46), version 0 (KIP-455): what is on its way to other replicas. Null topics mean all; of named
// ones, what does not exist or does not move is left out. Replicas are all that a partition has now, with those that it is to
// get and to lose.
func handleListPartitionReassignments(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.ListPartitionReassignmentsRequest)
	resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	img := s.deps.meta.Image()
	if req.Topics == nil {
		for _, t := range img.Topics() {
			resp.Topics = appendReassignments(resp.Topics, img, t.Name, len(t.Partitions), func(i int) int32 { return int32(i) })
		}
		return resp, nil
	}
	for _, t := range req.Topics {
		resp.Topics = appendReassignments(resp.Topics, img, t.Topic, len(t.Partitions), func(i int) int32 { return t.Partitions[i] })
	}
	return resp, nil
}

// appendReassignments adds those of n partitions that move; a topic without any is not named.
func appendReassignments(to []kmsg.ListPartitionReassignmentsResponseTopic, img image, topic string, n int, index func(i int) int32) []kmsg.ListPartitionReassignmentsResponseTopic {
	out := kmsg.NewListPartitionReassignmentsResponseTopic()
	out.Topic = topic
	for i := range n {
		p, ok := img.Partition(base.TopicPartition{Topic: topic, Partition: index(i)})
		if !ok {
			continue
		}
		if state := p.State(); !state.Reassigning() {
			continue
		}
		lp := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		lp.Partition, lp.Replicas = p.TP.Partition, brokerIDs(p.Replicas)
		lp.AddingReplicas, lp.RemovingReplicas = brokerIDs(p.Adding), brokerIDs(p.Removing)
		out.Partitions = append(out.Partitions, lp)
	}
	if len(out.Partitions) == 0 {
		return to
	}
	return append(to, out)
}
