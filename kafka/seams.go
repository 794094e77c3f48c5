package kafka

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// backends are the four components as this package sees them. Tests hand in stand-ins.
type backends struct {
	meta   cluster
	ingest appender
	fetch  reader
	groups coordinator
}

// image is what a handler reads of metadata.Image.
type image interface {
	Revision() int64
	ClusterID() string
	Controller() base.BrokerID
	Topic(name string) (*metadata.Topic, bool)
	TopicByID(id base.TopicID) (*metadata.Topic, bool)
	Topics() []*metadata.Topic
	Partition(tp base.TopicPartition) (*metadata.Partition, bool)
	Brokers() []metadata.Broker
	AllBrokers() []metadata.Broker
	Broker() *metadata.BrokerConfig
}

// cluster is metadata.Store.
type cluster interface {
	Image() image
	AwaitTopic(ctx context.Context, name string) error
	CreateTopic(ctx context.Context, spec metadata.TopicSpec, validateOnly bool) (*metadata.Topic, error)
	EnsureInternalTopic(ctx context.Context, name string) error
	DeleteTopic(ctx context.Context, id base.TopicID) error
	CreatePartitions(ctx context.Context, name string, count int32, assignment [][]base.BrokerID, validateOnly bool) error
	DescribeConfigs(r metadata.Resource, names []string) ([]metadata.ConfigEntry, error)
	IncrementalAlterConfigs(ctx context.Context, r metadata.Resource, ops []metadata.ConfigOp, validateOnly bool) error
	ReplaceConfigs(ctx context.Context, r metadata.Resource, configs map[string]*string, validateOnly bool) error
	NextProducerID(ctx context.Context) (base.ProducerID, error)
	ElectLeaders(ctx context.Context, tps []base.TopicPartition, unclean bool) []error
	ReassignMany(ctx context.Context, list []metadata.Reassignment) []error
	UnregisterBroker(ctx context.Context, id base.BrokerID) error
}

// meet gets to know a topic that another broker may have just created. Kafka forwards what changes topics to its controller, which
// knows all of them; here each broker decides, from its image. Where etcd does not answer, the image has to do.
func (s *Server) meet(ctx context.Context, topic string) {
	if err := s.deps.meta.AwaitTopic(ctx, topic); err != nil && ctx.Err() == nil {
		s.log.Warn("is there such a topic", slog.String("topic", topic), slog.Any("err", err))
	}
}

// receipt is ingest.Receipt.
type receipt interface {
	Done() <-chan struct{}
	Results() []ingest.AppendResult
}

// appender is ingest.Ingest.
type appender interface {
	// Confirm makes sure that this broker leads the partition: kerr.NotLeaderForPartition.
	Confirm(ctx context.Context, tp base.TopicPartition) error
	Append(ctx context.Context, acks int16, timeoutMs int32, reqs []ingest.AppendRequest) receipt
	DeleteRecords(tp base.TopicPartition, to base.Offset) (goal base.Offset, err error)
	AwaitLowWatermark(ctx context.Context, tp base.TopicPartition, goal base.Offset) (base.Offset, error)
	EpochEnd(ctx context.Context, tp base.TopicPartition, currentEpoch, epoch base.LeaderEpoch) (base.LeaderEpoch, base.Offset, error)
	Status(tp base.TopicPartition) (ingest.Status, error)
	// ReplicaStatus is Status also where this broker only follows.
	ReplicaStatus(p *metadata.Partition) (ingest.Status, error)
}

// reader is fetch.Service.
type reader interface {
	Fetch(ctx context.Context, r *fetch.Request) []fetch.PartitionResponse
	FetchFollower(ctx context.Context, r *fetch.FollowerRequest) (session int32, out []fetch.FollowerResponse, err error)
	ListOffset(ctx context.Context, tp base.TopicPartition, currentEpoch base.LeaderEpoch, timestamp int64, readCommitted bool) (fetch.OffsetResult, error)
}

// coordinator is group.Coordinator.
type coordinator interface {
	JoinGroup(ctx context.Context, cl group.Client, r *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse
	SyncGroup(ctx context.Context, cl group.Client, r *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse
	Heartbeat(ctx context.Context, cl group.Client, r *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse
	LeaveGroup(ctx context.Context, cl group.Client, r *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse
	OffsetCommit(ctx context.Context, cl group.Client, r *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse
	OffsetFetch(ctx context.Context, cl group.Client, r *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse
	OffsetDelete(ctx context.Context, cl group.Client, r *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse
	DescribeGroups(ctx context.Context, cl group.Client, r *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse
	ListGroups(ctx context.Context, cl group.Client, r *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse
	DeleteGroups(ctx context.Context, cl group.Client, r *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse
}

// storeCluster gives metadata.Store the shape of cluster.
type storeCluster struct{ *metadata.Store }

func (s storeCluster) Image() image { return s.Store.Image() }

// EnsureInternalTopic creates an internal topic with the settings that it must have, unless it exists.
func (s storeCluster) EnsureInternalTopic(ctx context.Context, name string) error {
	_, err := s.Store.EnsureInternalTopic(ctx, name)
	return err
}

// ingestAppender gives ingest.Ingest the shape of appender.
type ingestAppender struct{ *ingest.Ingest }

func (a ingestAppender) Append(ctx context.Context, acks int16, timeoutMs int32, reqs []ingest.AppendRequest) receipt {
	return a.Ingest.Append(ctx, acks, timeoutMs, reqs)
}

// ReplicaStatus is Status also where this broker only follows: kerr.NotLeaderForPartition where it has no replica.
func (a ingestAppender) ReplicaStatus(p *metadata.Partition) (ingest.Status, error) {
	status, err := a.Ingest.Status(p.TP)
	if errors.Is(err, kerr.NotLeaderForPartition) {
		if replica := a.Ingest.Replica(p.Log); replica != nil {
			return replica.Status(), nil
		}
	}
	return status, err
}

// Short names for the parts of an image that handlers pass around.
type (
	metadataTopic  = metadata.Topic
	metadataBroker = metadata.Broker
)
