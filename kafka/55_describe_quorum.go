package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeQuorum (55), versions 0-2 (KIP-595, KIP-836, KIP-853).
//
// NB: there is no KRaft quorum. Metadata lives in etcd, whose members have commands of their own; this answer lets
// kafka-metadata-quorum and monitoring ask what they ask Kafka:
//
//   - leader: the controller; leader epoch: the revision at which it registered, which grows with every new one;
//   - high watermark and log end: the revision of the etcd store that this broker's image shows;
//   - voters: the registered brokers, of which this is one, without a directory id; no observers;
//   - nodes (v2): the brokers' Kafka listeners, which take every admin request.
//
// Only a request for __cluster_metadata-0 alone is answered; with anything else in it each partition is 3
// (KafkaRaftClient.hasValidTopicPartition).
func handleDescribeQuorum(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DescribeQuorumRequest)
	resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
	resp.ErrorMessage = text("") // the default of the schema, as Kafka sends it
	if len(req.Topics) == 1 && req.Topics[0].Topic == clusterMetadataTopic && len(req.Topics[0].Partitions) == 1 && req.Topics[0].Partitions[0].Partition == 0 {
		s.describeQuorum(resp)
		return resp, nil
	}
	for _, t := range req.Topics {
		out := kmsg.NewDescribeQuorumResponseTopic()
		out.Topic = t.Topic
		for _, q := range t.Partitions {
			p := kmsg.NewDescribeQuorumResponseTopicPartition()
			p.Partition = q.Partition
			p.ErrorCode, p.ErrorMessage = r.code(kerr.UnknownTopicOrPartition), messageOf(kerr.UnknownTopicOrPartition)
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

const (
	clusterMetadataTopic = "__cluster_metadata" // the log of a KRaft quorum
	listenerName         = "PLAINTEXT"          // of every listener: there is no other protocol yet
)

func (s *Server) describeQuorum(resp *kmsg.DescribeQuorumResponse) {
	img := s.deps.meta.Image()
	leader := s.controller(img)
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.ErrorMessage = text("")
	p.LeaderID, p.HighWatermark = int32(leader), img.Revision()
	now := s.opts.Clock.Now().UnixMilli()
	for _, b := range s.brokers(img) {
		v := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		v.ReplicaID, v.LogEndOffset = int32(b.ID), -1
		if b.ID == leader {
			p.LeaderEpoch = int32(min(b.Epoch, math.MaxInt32))
		}
		if b.ID == s.opts.BrokerID { // of others this broker does not know how far they are
			v.LogEndOffset, v.LastFetchTimestamp, v.LastCaughtUpTimestamp = img.Revision(), now, now
		}
		p.CurrentVoters = append(p.CurrentVoters, v)
		resp.Nodes = append(resp.Nodes, quorumNode(b))
	}
	t := kmsg.NewDescribeQuorumResponseTopic()
	t.Topic, t.Partitions = clusterMetadataTopic, append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
}

func quorumNode(b metadataBroker) kmsg.DescribeQuorumResponseNode {
	n := kmsg.NewDescribeQuorumResponseNode()
	n.NodeID = int32(b.ID)
	l := kmsg.NewDescribeQuorumResponseNodeListener()
	l.Name, l.Host, l.Port = listenerName, b.Host, uint16(b.Port)
	n.Listeners = append(n.Listeners, l)
	return n
}
