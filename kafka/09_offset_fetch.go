package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// OffsetFetch (9), versions 1-10.
//
// Up to v7 one group, from v8 many. From v10 topics are named by id: an unknown one is 100 for its partitions; where all
// topics were asked for (null), those that no longer exist are left out. Everything else is the coordinator's: unknown
// groups and partitions have offset -1 and no error.
func handleOffsetFetch(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.OffsetFetchRequest)
	if req.Version < 10 {
		resp := s.deps.groups.OffsetFetch(ctx, r.client(), req)
		r.note(resp.ErrorCode)
		return resp, nil
	}
	img := s.deps.meta.Image()
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(req.Groups))
	for i := range req.Groups {
		g := &req.Groups[i]
		if g.Topics == nil {
			continue
		}
		known := []kmsg.OffsetFetchRequestGroupTopic{}
		for _, t := range g.Topics {
			if topic, ok := img.TopicByID(base.TopicID(t.TopicID)); ok {
				t.Topic = topic.Name
				known = append(known, t)
			} else {
				unknown[i] = append(unknown[i], refuseOffsets(&t, r.code(kerr.UnknownTopicID)))
			}
		}
		g.Topics = known
	}
	resp := s.deps.groups.OffsetFetch(ctx, r.client(), req)
	for i := range resp.Groups {
		g := &resp.Groups[i]
		if i < len(unknown) && g.ErrorCode == 0 {
			g.Topics = append(g.Topics, unknown[i]...)
		}
		r.note(g.ErrorCode)
	}
	return resp, nil
}

func refuseOffsets(t *kmsg.OffsetFetchRequestGroupTopic, code int16) kmsg.OffsetFetchResponseGroupTopic {
	out := kmsg.NewOffsetFetchResponseGroupTopic()
	out.TopicID = t.TopicID
	for _, p := range t.Partitions {
		op := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		op.Partition, op.Offset, op.LeaderEpoch, op.Metadata, op.ErrorCode = p, -1, -1, text(""), code
		out.Partitions = append(out.Partitions, op)
	}
	return out
}
