package kafka

import (
	"context"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// Voter is a member of the cluster's etcd, as a broker.
type Voter struct {
	ID      base.BrokerID
	Learner bool  // it does not vote yet
	Healthy bool  // it answers and has a leader
	Index   int64 // of raft's log, up to where it knows entries to be committed; 0 where it does not answer
	Term    int64 // raft's; 0 where it does not answer
}

// DescribeQuorum (55), versions 0-2 (KIP-595, KIP-836, KIP-853).
//
// NB: there is no KRaft quorum. Metadata lives in etcd, which `varve cluster` changes: AddRaftVoter (80) and RemoveRaftVoter
// (81) name voters by the directory ids and listeners of controllers, which ours have not, and are not served. This answer lets
// kafka-metadata-quorum and monitoring ask what they ask Kafka:
//
//   - voters: the brokers with a voting member, without a directory id; observers: those with a learner, and all other
//     registered brokers, which only watch etcd: how far those are, nobody knows, and their log end is -1;
//   - leader: the controller; leader epoch: raft's term; high watermark: the highest raft index that is known to be committed;
//   - a voter's log end is that index as it knows it; it is caught up now where it is healthy, else nobody knows when it was;
//   - nodes (v2): the brokers' Kafka listeners, which take every admin request.
//
// Only a request for __cluster_metadata-0 alone is answered; with anything else in it each partition is 3
// (KafkaRaftClient.hasValidTopicPartition). Without a majority of voters: 7.
func handleDescribeQuorum(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DescribeQuorumRequest)
	resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
	resp.ErrorMessage = text("") // the default of the schema, as Kafka sends it
	if len(req.Topics) == 1 && req.Topics[0].Topic == clusterMetadataTopic && len(req.Topics[0].Partitions) == 1 && req.Topics[0].Partitions[0].Partition == 0 {
		if err := s.describeQuorum(ctx, resp); err != nil {
			resp.ErrorCode, resp.ErrorMessage = r.code(err), messageOf(err)
		}
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

func (s *Server) describeQuorum(ctx context.Context, resp *kmsg.DescribeQuorumResponse) error {
	img := s.deps.meta.Image()
	voters, err := s.voters(ctx, img)
	if err != nil {
		return refuse(kerr.RequestTimedOut, "No majority of the voters answers: "+err.Error())
	}
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.ErrorMessage = text("")
	p.LeaderID, p.HighWatermark = int32(s.controller(img)), -1
	now := s.opts.Clock.Now().UnixMilli()
	for _, v := range voters {
		state := replicaState(v.ID)
		if v.Healthy {
			state.LogEndOffset, state.LastFetchTimestamp, state.LastCaughtUpTimestamp = v.Index, now, now
		}
		p.LeaderEpoch = max(p.LeaderEpoch, int32(min(v.Term, math.MaxInt32)))
		p.HighWatermark = max(p.HighWatermark, v.Index)
		if v.Learner {
			p.Observers = append(p.Observers, state)
		} else {
			p.CurrentVoters = append(p.CurrentVoters, state)
		}
	}
	for _, b := range img.AllBrokers() {
		member := slices.ContainsFunc(voters, func(v Voter) bool { return v.ID == b.ID })
		if member {
			resp.Nodes = append(resp.Nodes, quorumNode(b))
		} else {
			p.Observers = append(p.Observers, replicaState(b.ID))
		}
	}
	t := kmsg.NewDescribeQuorumResponseTopic()
	t.Topic, t.Partitions = clusterMetadataTopic, append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
	return nil
}

// voters asks etcd for its members. Where there is none, as in a simulation, the controller is the only voter, at the revision
// of the image.
func (s *Server) voters(ctx context.Context, img image) ([]Voter, error) {
	if s.opts.Voters == nil {
		return []Voter{{ID: s.controller(img), Healthy: true, Index: img.Revision(), Term: 1}}, nil
	}
	return s.opts.Voters(ctx)
}

// replicaState is a replica of which nothing is known but its broker.
func replicaState(id base.BrokerID) kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
	state := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
	state.ReplicaID, state.LogEndOffset, state.LastFetchTimestamp, state.LastCaughtUpTimestamp = int32(id), -1, -1, -1
	return state
}

func quorumNode(b metadataBroker) kmsg.DescribeQuorumResponseNode {
	n := kmsg.NewDescribeQuorumResponseNode()
	n.NodeID = int32(b.ID)
	l := kmsg.NewDescribeQuorumResponseNodeListener()
	l.Name, l.Host, l.Port = listenerName, b.Host, uint16(b.Port)
	n.Listeners = append(n.Listeners, l)
	return n
}
