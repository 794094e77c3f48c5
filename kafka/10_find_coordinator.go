package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// Coordinator types (FindCoordinator).
const (
	coordinatorGroup       = 0
	coordinatorTransaction = 1
	coordinatorShare       = 2
)

// FindCoordinator (10), versions 0-6.
//
//   - A group's coordinator leads the partition abs(hash(group)) % partitions of __consumer_offsets. The first request creates that topic
//     and is answered with 15 until it is there.
//   - Transactions (type 1, v1) and share groups (type 2, v6) have no coordinator yet: 35, which clients take as final.
//   - v4 asks for many keys and has an error for each; older versions have one at the top.
func handleFindCoordinator(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	keys := req.CoordinatorKeys
	if req.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	for _, key := range keys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Port, c.ErrorMessage = key, -1, -1, text("")
		b, err := s.findCoordinator(req.CoordinatorType, req.Version, key)
		if err != nil {
			c.ErrorCode, c.ErrorMessage = r.code(err), messageOf(err)
		} else {
			c.NodeID, c.Host, c.Port = int32(b.ID), b.Host, b.Port
		}
		if req.Version >= 4 {
			resp.Coordinators = append(resp.Coordinators, c)
			continue
		}
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = c.ErrorCode, c.ErrorMessage, c.NodeID, c.Host, c.Port
	}
	return resp, nil
}

func (s *Server) findCoordinator(kind int8, version int16, key string) (metadataBroker, error) {
	switch {
	case kind == coordinatorTransaction:
		return metadataBroker{}, refuse(kerr.UnsupportedVersion, "Transactions are not supported by this broker yet.")
	case kind == coordinatorShare && version >= 6:
		return metadataBroker{}, refuse(kerr.UnsupportedVersion, "Share groups are not supported by this broker yet.")
	case kind != coordinatorGroup:
		return metadataBroker{}, kerr.InvalidRequest
	}
	img := s.deps.meta.Image()
	topic, ok := img.Topic(metadata.ConsumerOffsetsTopic)
	if !ok || len(topic.Partitions) == 0 {
		s.createInternal(metadata.ConsumerOffsetsTopic)
		return metadataBroker{}, kerr.CoordinatorNotAvailable
	}
	p := topic.Partitions[group.PartitionFor(key, int32(len(topic.Partitions)))]
	for _, b := range img.Brokers() {
		if b.ID == p.Leader && p.Leader != base.BrokerID(-1) {
			return b, nil
		}
	}
	return metadataBroker{}, kerr.CoordinatorNotAvailable
}
