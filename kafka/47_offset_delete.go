package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetDelete (47), version 0 (KIP-496): coordinator/group. A partition that the group still reads is 86.
//
// The edge refuses partitions that a topic does not have with 3, while the others are deleted; a topic that does not exist
// is the coordinator's to refuse.
func handleOffsetDelete(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.OffsetDeleteRequest)
	img := s.deps.meta.Image()
	refused := map[string][]kmsg.OffsetDeleteResponseTopicPartition{}
	for i := range req.Topics {
		t := &req.Topics[i]
		topic, ok := img.Topic(t.Topic)
		if !ok {
			continue
		}
		var known []kmsg.OffsetDeleteRequestTopicPartition
		for _, p := range t.Partitions {
			if p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				known = append(known, p)
				continue
			}
			bad := kmsg.NewOffsetDeleteResponseTopicPartition()
			bad.Partition, bad.ErrorCode = p.Partition, r.code(kerr.UnknownTopicOrPartition)
			refused[t.Topic] = append(refused[t.Topic], bad)
		}
		t.Partitions = known
	}
	resp := s.deps.groups.OffsetDelete(ctx, r.client(), req)
	r.note(resp.ErrorCode)
	for i := range resp.Topics { // none where the group itself is refused
		t := &resp.Topics[i]
		t.Partitions = append(refused[t.Topic], t.Partitions...)
		delete(refused, t.Topic)
	}
	return resp, nil
}
