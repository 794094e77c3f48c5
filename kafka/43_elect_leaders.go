package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// ElectLeaders (43), versions 0-2 (KIP-183, KIP-460).
//
//   - Preferred: the first replica becomes the leader. 84 where it is, 80 where it is not alive and in sync, or is being drained.
//   - Unclean: a partition without a leader gets a live replica as its leader, whatever that lacks; committed records may be lost.
//     84 where it has a leader, 83 where no replica is alive.
//   - Null topics mean all; then what needs no election is left out, but every topic is named. No topics answer nothing,
//     whatever the type.
//
// v1 unclean elections and a top-level error; an unknown type is 42, at the top and for each partition.
func handleElectLeaders(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	ctx, cancel := s.requestTimeout(req.TimeoutMillis)
	defer cancel()
	for i := range req.Topics {
		s.meet(ctx, req.Topics[i].Topic)
	}
	img := s.deps.meta.Image()
	var refused error
	if req.ElectionType != electPreferred && req.ElectionType != electUnclean && (req.Topics == nil || len(req.Topics) > 0) {
		refused = refuse(kerr.InvalidRequest, "Unknown election type "+itoa(int32(req.ElectionType)))
	}
	resp.ErrorCode = r.code(refused)
	topics := s.electable(img, req)
	var tps []base.TopicPartition
	for _, t := range topics {
		for _, index := range t.Partitions {
			tps = append(tps, base.TopicPartition{Topic: t.Topic, Partition: index})
		}
	}
	errs := make([]error, len(tps))
	if refused == nil {
		errs = s.deps.meta.ElectLeaders(ctx, tps, req.ElectionType == electUnclean)
	}
	for _, t := range topics {
		out := kmsg.NewElectLeadersResponseTopic()
		out.Topic = t.Topic
		for _, index := range t.Partitions {
			err := refused
			if err == nil {
				err = electionError(img, tps[0], errs[0])
			}
			tps, errs = tps[1:], errs[1:]
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition = index
			p.ErrorCode, p.ErrorMessage = r.code(err), messageOf(err)
			if req.Topics == nil && p.ErrorCode == kerr.ElectionNotNeeded.Code {
				continue
			}
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// Election types of KIP-460.
const (
	electPreferred = 0
	electUnclean   = 1
)

// electable lists what was asked for, or all partitions; nothing where all were asked for with an unknown type.
func (s *Server) electable(img image, req *kmsg.ElectLeadersRequest) []kmsg.ElectLeadersRequestTopic {
	if req.Topics != nil {
		return req.Topics
	}
	if req.ElectionType != electPreferred && req.ElectionType != electUnclean {
		return nil
	}
	all := make([]kmsg.ElectLeadersRequestTopic, 0, len(img.Topics()))
	for _, topic := range img.Topics() {
		t := kmsg.NewElectLeadersRequestTopic()
		t.Topic = topic.Name
		for i := range topic.Partitions {
			t.Partitions = append(t.Partitions, int32(i))
		}
		all = append(all, t)
	}
	return all
}

// electionError puts what the Store says of a partition that is not there into the words of ReplicationControlManager.electLeader.
func electionError(img image, tp base.TopicPartition, err error) error {
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	if _, ok := img.Topic(tp.Topic); !ok {
		return refuse(kerr.UnknownTopicOrPartition, "No such topic as "+tp.Topic)
	}
	return refuse(kerr.UnknownTopicOrPartition, "No such partition as "+tp.String())
}
