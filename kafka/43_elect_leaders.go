package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// ElectLeaders (43), versions 0-2 (KIP-183, KIP-460).
//
//   - Every partition has one replica, which is its preferred leader while it is alive: 84. Where it has no leader no other can
//     be elected: 80 for a preferred election, 83 for an unclean one (ReplicationControlManager.electLeader).
//   - Null topics mean all; then what needs no election is left out, but every topic is named. No topics answer nothing,
//     whatever the type.
//
// v1 unclean elections and a top-level error; an unknown type is 42, at the top and for each partition.
func handleElectLeaders(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	img := s.deps.meta.Image()
	var refused error
	if req.ElectionType != electPreferred && req.ElectionType != electUnclean && (req.Topics == nil || len(req.Topics) > 0) {
		refused = refuse(kerr.InvalidRequest, "Unknown election type "+itoa(int32(req.ElectionType)))
	}
	resp.ErrorCode = r.code(refused)
	for _, t := range s.electable(img, req) {
		out := kmsg.NewElectLeadersResponseTopic()
		out.Topic = t.Topic
		for _, index := range t.Partitions {
			err := refused
			if err == nil {
				err = electLeader(img, base.TopicPartition{Topic: t.Topic, Partition: index}, req.ElectionType)
			}
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

// electLeader says why no leader is elected for a partition.
func electLeader(img image, tp base.TopicPartition, kind int8) error {
	if _, ok := img.Topic(tp.Topic); !ok {
		return refuse(kerr.UnknownTopicOrPartition, "No such topic as "+tp.Topic)
	}
	p, ok := img.Partition(tp)
	switch {
	case !ok:
		return refuse(kerr.UnknownTopicOrPartition, "No such partition as "+tp.String())
	case kind == electUnclean && p.Leader >= 0, len(p.Replicas) > 0 && p.Leader == p.Replicas[0]:
		return refuse(kerr.ElectionNotNeeded, "Leader election not needed for topic partition.")
	case kind == electUnclean:
		return refuse(kerr.EligibleLeadersNotAvailable, "Eligible topic partition leaders are not available.")
	}
	return refuse(kerr.PreferredLeaderNotAvailable, "The preferred leader was not available.")
}
