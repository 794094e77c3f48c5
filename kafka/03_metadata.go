package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// Metadata (3), versions 0-13.
//
//   - v0: an empty list of topics means all; from v1 a null list does and an empty one means none.
//   - A topic that does not exist is 3, also where it is created because of this request (auto.create.topics.enable and the
//     request's own flag, v4): the client asks again and finds it. A name that cannot be is 17.
//   - From v12 topics may be asked for by id; an unknown id is 100 with a null name. In v10 and v11 that is 42 for all topics.
//   - v8-10 cluster authorised operations, v8 topic authorised operations; without an authorizer: all of them.
//   - v13 has a top-level error, which is always 0 here.
func handleMetadata(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.MetadataRequest)
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	img := s.deps.meta.Image()
	s.fillCluster(img, req, resp)
	ops := req.IncludeTopicAuthorizedOperations
	switch {
	case req.Topics == nil || (req.Version == 0 && len(req.Topics) == 0):
		for _, t := range img.Topics() {
			resp.Topics = append(resp.Topics, describeTopic(img, t, req.Version, ops))
		}
	case byIDTooEarly(req):
		for _, t := range req.Topics {
			resp.Topics = append(resp.Topics, missingTopic(t.Topic, t.TopicID, r.code(kerr.InvalidRequest)))
		}
	default:
		s.fillTopics(r, img, req, resp)
	}
	return resp, nil
}

// noOperations is what Kafka sends where authorised operations were not asked for.
const noOperations = math.MinInt32

// Authorised operations without an authorizer: every operation that the resource has (1 << AclOperation).
const (
	topicOperations   = 3576
	groupOperations   = 3400
	clusterOperations = 8096
)

func (s *Server) fillCluster(img image, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	for _, b := range s.brokers(img) {
		nb := kmsg.NewMetadataResponseBroker()
		nb.NodeID, nb.Host, nb.Port, nb.Rack = int32(b.ID), b.Host, b.Port, b.Rack
		resp.Brokers = append(resp.Brokers, nb)
	}
	resp.ClusterID = text(img.ClusterID())
	resp.ControllerID = int32(s.controller(img))
	resp.AuthorizedOperations = noOperations
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
}

// brokers lists the live brokers; before this one is registered, it shows itself.
func (s *Server) brokers(img image) []metadata.Broker {
	if brokers := img.Brokers(); len(brokers) > 0 {
		return brokers
	}
	host, port := s.opts.Advertised()
	if host == "" {
		return nil
	}
	return []metadata.Broker{{ID: s.opts.BrokerID, Host: host, Port: port}}
}

// controller is a live broker that clients may send admin requests to. Any broker takes them, so it is the controller where
// that is alive and this broker otherwise.
func (s *Server) controller(img image) base.BrokerID {
	id := img.Controller()
	for _, b := range img.Brokers() {
		if b.ID == id {
			return id
		}
	}
	return s.opts.BrokerID
}

func byIDTooEarly(req *kmsg.MetadataRequest) bool {
	if req.Version >= 12 {
		return false
	}
	for i := range req.Topics {
		if req.Topics[i].Topic == nil || req.Topics[i].TopicID != [16]byte{} {
			return true
		}
	}
	return false
}

// fillTopics answers for named topics: those that exist first, as Kafka does.
func (s *Server) fillTopics(r *request, img image, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	var missing []kmsg.MetadataResponseTopic
	seen := make(map[string]bool, len(req.Topics))
	for _, t := range req.Topics {
		if t.Topic == nil {
			if topic, ok := img.TopicByID(base.TopicID(t.TopicID)); ok {
				resp.Topics = append(resp.Topics, describeTopic(img, topic, req.Version, req.IncludeTopicAuthorizedOperations))
			} else {
				missing = append(missing, missingTopic(nil, t.TopicID, r.code(kerr.UnknownTopicID)))
			}
			continue
		}
		name := *t.Topic
		if seen[name] {
			continue
		}
		seen[name] = true
		if topic, ok := img.Topic(name); ok {
			resp.Topics = append(resp.Topics, describeTopic(img, topic, req.Version, req.IncludeTopicAuthorizedOperations))
			continue
		}
		err := kerr.UnknownTopicOrPartition
		switch {
		case invalidTopicName(name):
			err = kerr.InvalidTopicException
		case req.Version < 4 || req.AllowAutoTopicCreation:
			s.autoCreate(img, name)
		}
		missing = append(missing, missingTopic(t.Topic, t.TopicID, r.code(err)))
	}
	resp.Topics = append(resp.Topics, missing...)
}

func missingTopic(name *string, id [16]byte, code int16) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID, t.ErrorCode = name, id, code
	t.AuthorizedOperations = noOperations
	if name != nil {
		t.IsInternal = internalTopic(*name)
	}
	return t
}

func describeTopic(img image, topic *metadataTopic, version int16, operations bool) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID, t.IsInternal = text(topic.Name), topic.ID, topic.Internal
	t.AuthorizedOperations = noOperations
	if operations {
		t.AuthorizedOperations = topicOperations
	}
	live := liveBrokers(img)
	t.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(topic.Partitions))
	for i := range topic.Partitions {
		p := &topic.Partitions[i]
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch = int32(i), int32(p.Leader), int32(p.LeaderEpoch)
		mp.Replicas, mp.ISR = brokerIDs(p.Replicas), brokerIDs(p.ISR)
		mp.OfflineReplicas = offline(live, p.Replicas)
		if p.Leader < 0 || !live[p.Leader] {
			mp.Leader, mp.ErrorCode = -1, kerr.LeaderNotAvailable.Code
		}
		t.Partitions[i] = mp
	}
	return t
}

func liveBrokers(img image) map[base.BrokerID]bool {
	live := map[base.BrokerID]bool{}
	for _, b := range img.Brokers() {
		live[b.ID] = true
	}
	return live
}

func brokerIDs(ids []base.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func offline(live map[base.BrokerID]bool, replicas []base.BrokerID) []int32 {
	out := []int32{}
	for _, id := range replicas {
		if !live[id] {
			out = append(out, int32(id))
		}
	}
	return out
}

// internalTopic reports whether brokers own the topic of that name, whether it exists or not.
func internalTopic(name string) bool {
	return name == metadata.ConsumerOffsetsTopic || name == metadata.TransactionStateTopic || name == "__share_group_state"
}

// invalidTopicName reports whether no topic can have the name.
func invalidTopicName(name string) bool { return metadata.ValidateTopicName(name) != nil }
