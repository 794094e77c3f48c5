package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// DeleteTopics (20), versions 1-6.
//
//   - Up to v5 by name; from v6 by name or by id, not both (42).
//   - A missing name is 3, a missing id 100; what stands twice is 42.
//   - v5 has error messages.
func handleDeleteTopics(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DeleteTopicsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := s.requestTimeout(req.TimeoutMillis)
	defer cancel()
	targets := req.Topics
	for i := range req.TopicNames {
		targets = append(targets, kmsg.DeleteTopicsRequestTopic{Topic: &req.TopicNames[i]})
	}
	for i := range targets {
		if name := targets[i].Topic; name != nil {
			s.meet(ctx, *name)
		}
	}
	img := s.deps.meta.Image()
	times := map[base.TopicID]int{}
	for i := range targets {
		if topic, err := deletionTarget(img, &targets[i]); err == nil {
			times[topic.ID]++
		}
	}
	for i := range targets {
		t := &targets[i]
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		topic, err := deletionTarget(img, t)
		switch {
		case err != nil:
		case times[topic.ID] > 1:
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		default:
			out.Topic, out.TopicID = text(topic.Name), topic.ID
			err = s.deps.meta.DeleteTopic(ctx, topic.ID)
		}
		out.ErrorCode, out.ErrorMessage = r.code(err), messageOf(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// deletionTarget finds the topic that a request means.
func deletionTarget(img image, t *kmsg.DeleteTopicsRequestTopic) (*metadataTopic, error) {
	id := base.TopicID(t.TopicID)
	switch {
	case t.Topic != nil && !id.IsZero():
		return nil, refuse(kerr.InvalidRequest, "You may not specify both topic name and topic id.")
	case t.Topic == nil && id.IsZero():
		return nil, refuse(kerr.InvalidRequest, "Neither topic name nor id were specified.")
	case t.Topic != nil:
		if topic, ok := img.Topic(*t.Topic); ok {
			return topic, nil
		}
		return nil, kerr.UnknownTopicOrPartition
	default:
		if topic, ok := img.TopicByID(id); ok {
			return topic, nil
		}
		return nil, kerr.UnknownTopicID
	}
}
