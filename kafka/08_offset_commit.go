package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// OffsetCommit (8), versions 2-10.
//
// The edge resolves topics: a partition that does not exist is 3 (an unknown id from v10: 100) while the others are
// committed; their errors come first in the answer, as Kafka's do. Everything else is the coordinator's.
func handleOffsetCommit(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.OffsetCommitRequest)
	img := s.deps.meta.Image()
	refused := map[string][]kmsg.OffsetCommitResponseTopicPartition{}
	var unknown []kmsg.OffsetCommitResponseTopic
	var known []kmsg.OffsetCommitRequestTopic
	ids := map[string][16]byte{}
	for _, t := range req.Topics {
		if req.Version >= 10 {
			topic, ok := img.TopicByID(base.TopicID(t.TopicID))
			if !ok {
				unknown = append(unknown, refuseCommit(&t, r.code(kerr.UnknownTopicID)))
				continue
			}
			t.Topic = topic.Name
			ids[t.Topic] = t.TopicID
		}
		topic, ok := img.Topic(t.Topic)
		if !ok {
			unknown = append(unknown, refuseCommit(&t, r.code(kerr.UnknownTopicOrPartition)))
			continue
		}
		var parts []kmsg.OffsetCommitRequestTopicPartition
		for _, p := range t.Partitions {
			if p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				parts = append(parts, p)
				continue
			}
			bad := kmsg.NewOffsetCommitResponseTopicPartition()
			bad.Partition, bad.ErrorCode = p.Partition, r.code(kerr.UnknownTopicOrPartition)
			refused[t.Topic] = append(refused[t.Topic], bad)
		}
		t.Partitions = parts
		known = append(known, t)
	}
	req.Topics = known
	resp := s.deps.groups.OffsetCommit(ctx, r.client(), req)
	for i := range resp.Topics {
		t := &resp.Topics[i]
		t.TopicID = ids[t.Topic]
		t.Partitions = append(refused[t.Topic], t.Partitions...)
		delete(refused, t.Topic)
		for _, p := range t.Partitions {
			r.note(p.ErrorCode)
		}
	}
	for _, t := range known { // topics of which no partition was left
		if parts, ok := refused[t.Topic]; ok {
			out := kmsg.NewOffsetCommitResponseTopic()
			out.Topic, out.TopicID, out.Partitions = t.Topic, ids[t.Topic], parts
			unknown = append(unknown, out)
			delete(refused, t.Topic)
		}
	}
	resp.Topics = append(unknown, resp.Topics...)
	return resp, nil
}

func refuseCommit(t *kmsg.OffsetCommitRequestTopic, code int16) kmsg.OffsetCommitResponseTopic {
	out := kmsg.NewOffsetCommitResponseTopic()
	out.Topic, out.TopicID = t.Topic, t.TopicID
	for _, p := range t.Partitions {
		op := kmsg.NewOffsetCommitResponseTopicPartition()
		op.Partition, op.ErrorCode = p.Partition, code
		out.Partitions = append(out.Partitions, op)
	}
	return out
}
