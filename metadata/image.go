// Package metadata is the cluster's shared truth: the KV seam over etcd, the immutable Image, the controller's writes.
package metadata

import (
	"context"

	"github.com/varvelog/varve/internal/base"
)

// Image is an immutable snapshot of the cluster's metadata. Readers load it once per request.
type Image struct{}

// Topic is one topic of an image.
type Topic struct {
	ID         base.TopicID
	Name       string
	Internal   bool              // __consumer_offsets and its kin
	Partitions []Partition       // by index
	Overrides  map[string]string // configs set on the topic
	Config     *TopicConfig      // effective values
}

// Partition is the state of one partition: one etcd key (design section 5).
type Partition struct {
	TP             base.TopicPartition
	TopicID        base.TopicID
	Log            base.LogID
	Replicas, ISR  []base.BrokerID
	ELR            []base.BrokerID
	Leader         base.BrokerID // -1: none
	LeaderEpoch    base.LeaderEpoch
	PartitionEpoch int32
	Rev            int64 // KV mod revision of the partition's key: what a fenced transaction compares
}

// Broker is a registered broker.
type Broker struct {
	ID    base.BrokerID
	Host  string
	Port  int32
	Rack  *string
	Epoch int64 // of its registration
}

func (i *Image) ClusterID() string                                   { panic("not built") } // 22 characters, as Kafka's
func (i *Image) Controller() base.BrokerID                           { panic("not built") }
func (i *Image) Topic(name string) (*Topic, bool)                    { panic("not built") }
func (i *Image) TopicByID(id base.TopicID) (*Topic, bool)            { panic("not built") }
func (i *Image) Topics() []*Topic                                    { panic("not built") } // sorted by name
func (i *Image) Partition(tp base.TopicPartition) (*Partition, bool) { panic("not built") }
func (i *Image) Log(id base.LogID) (*Partition, *Topic, bool)        { panic("not built") }
func (i *Image) Brokers() []Broker                                   { panic("not built") } // sorted by id
func (i *Image) Broker() *BrokerConfig                               { panic("not built") } // this broker's effective settings

// TopicConfig is a topic's effective configuration, parsed. Kafka's names and units; -1 and -2 keep Kafka's meaning.
type TopicConfig struct {
	Delete, Compact        bool // cleanup.policy
	RetentionMs            int64
	RetentionBytes         int64
	LocalRetentionMs       int64
	LocalRetentionBytes    int64
	SegmentBytes           int32
	SegmentMs              int64
	SegmentJitterMs        int64
	MaxMessageBytes        int32
	MinInsyncReplicas      int32
	LogAppendTime          bool
	TimestampBeforeMaxMs   int64
	TimestampAfterMaxMs    int64
	Compression            string // compression.type
	CompressionGzipLevel   int
	CompressionLZ4Level    int
	CompressionZstdLevel   int
	DeleteRetentionMs      int64
	MinCompactionLagMs     int64
	MaxCompactionLagMs     int64
	MinCleanableDirtyRatio float64
	RemoteStorageEnable    bool // default true
	RemoteCopyDisable      bool
	UncleanLeaderElection  bool
	SyncRelaxed            bool  // varve.sync=relaxed
	TieringMaxLagMs        int64 // varve.tiering.max.lag.ms
	TieringMaxLagBytes     int64 // varve.tiering.max.lag.bytes
}

// BrokerConfig is a broker's effective configuration: static (--set, flags), cluster default and its own dynamic values.
// The table in configs.go has every Kafka broker setting; Get reads any by name, the fields are what the code uses.
type BrokerConfig struct {
	// Filled by the owner of package metadata: one field per setting that some component reads, named as the setting is,
	// e.g. NumPartitions, DefaultReplicationFactor, AutoCreateTopics, MessageMaxBytes, FetchMaxBytes, OffsetsTopicPartitions,
	// GroupInitialRebalanceDelayMs, GroupMinSessionTimeoutMs, ...
	NumPartitions            int32
	DefaultReplicationFactor int16
	AutoCreateTopics         bool
}

// Store keeps the Image current and performs the controller's writes. Every method that writes returns after the local
// image shows the change. Errors wrap kerr errors (kerr.TopicAlreadyExists, kerr.InvalidPartitions, ...).
type Store struct{}

func (s *Store) Image() *Image { panic("not built") }

// Subscribe calls fn after each new image, from one goroutine, in order; the first call comes at once with old == nil.
func (s *Store) Subscribe(fn func(old, new *Image)) { panic("not built") }

// TopicSpec is a topic to create. Partitions and ReplicationFactor of -1 mean the broker's defaults.
type TopicSpec struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Assignment        map[int32][]base.BrokerID // nil: the controller places
	Configs           map[string]string
}

// CreateTopic validates and creates; with validateOnly it returns what would be created.
func (s *Store) CreateTopic(ctx context.Context, spec TopicSpec, validateOnly bool) (*Topic, error) {
	panic("not built")
}
func (s *Store) DeleteTopic(ctx context.Context, id base.TopicID) error { panic("not built") }

// CreatePartitions grows a topic to count partitions.
func (s *Store) CreatePartitions(ctx context.Context, name string, count int32, assignment [][]base.BrokerID, validateOnly bool) error {
	panic("not built")
}

// ResourceType is Kafka's config resource type.
type ResourceType int8

const (
	ResourceTopic         ResourceType = 2
	ResourceBroker        ResourceType = 4
	ResourceBrokerLogger  ResourceType = 8
	ResourceClientMetrics ResourceType = 16
	ResourceGroup         ResourceType = 32
)

// Resource names what a configuration belongs to. A broker resource with an empty name is the cluster default.
type Resource struct {
	Type ResourceType
	Name string
}

// ConfigOp is one entry of IncrementalAlterConfigs (KIP-339): Op 0 set, 1 delete, 2 append, 3 subtract.
type ConfigOp struct {
	Name  string
	Op    int8
	Value *string
}

// ConfigEntry is one entry of DescribeConfigs.
type ConfigEntry struct {
	Name          string
	Value         *string
	Source        int8 // Kafka's ConfigSource
	Type          int8 // Kafka's ConfigType
	ReadOnly      bool
	Sensitive     bool
	Documentation string
	Synonyms      []ConfigSynonym
}

// ConfigSynonym is where a value could come from, in order of precedence.
type ConfigSynonym struct {
	Name   string
	Value  *string
	Source int8
}

// DescribeConfigs lists the entries of a resource (names nil: all).
func (s *Store) DescribeConfigs(r Resource, names []string) ([]ConfigEntry, error) {
	panic("not built")
}

// IncrementalAlterConfigs applies ops to a resource, all or none.
func (s *Store) IncrementalAlterConfigs(ctx context.Context, r Resource, ops []ConfigOp, validateOnly bool) error {
	panic("not built")
}

// ReplaceConfigs is AlterConfigs: the given set replaces the resource's.
func (s *Store) ReplaceConfigs(ctx context.Context, r Resource, configs map[string]*string, validateOnly bool) error {
	panic("not built")
}

// NextProducerID hands out a producer id that was never handed out before (blocks of 1000).
func (s *Store) NextProducerID(ctx context.Context) (base.ProducerID, error) { panic("not built") }

// Root is the manifest root of a partition in etcd: which manifest object is current, and its summary.
type Root struct {
	Log       base.LogID       `json:"log"`
	Epoch     base.LeaderEpoch `json:"epoch"` // leader epoch of the writer
	Seq       int64            `json:"seq"`   // version of the manifest, grows with each attempt
	Object    string           `json:"object"`
	Pos       int64            `json:"pos"` // of the manifest within the object
	Len       int64            `json:"len"`
	CRC32C    uint32           `json:"crc"`
	Start     base.Offset      `json:"start"` // log start offset as of this manifest
	TieredEnd base.Offset      `json:"end"`   // offset after the last tiered record
	Bytes     int64            `json:"bytes"`
	Objects   int64            `json:"objects"`
	Rev       int64            `json:"-"` // KV mod revision of the root's key, 0 where it does not exist
}

// Roots lists the manifest roots of all partitions.
func (s *Store) Roots(ctx context.Context) (map[base.LogID]Root, error) { panic("not built") }

// Root reads one root from the KV, not from the image.
func (s *Store) Root(ctx context.Context, log base.LogID) (Root, bool, error) { panic("not built") }

// SwapRoots swaps each root on its own: root.Rev is the revision it replaces (0: none yet). A swap commits only while the
// partition's key still has the leader epoch root.Epoch (I4). errs[i] is nil where root i committed, then roots[i].Rev is
// the new revision; kerr.FencedLeaderEpoch where the epoch or the root moved on; kerr.UnknownTopicOrPartition where the
// partition was deleted; any other error means unknown: read the root again before going on.
func (s *Store) SwapRoots(ctx context.Context, roots []*Root) (errs []error) { panic("not built") }

// Intent is an upload that is under way (I7): while it exists no sweep touches the objects that it names.
type Intent struct {
	ID      string        `json:"id"`
	Broker  base.BrokerID `json:"broker"`
	Epoch   int64         `json:"epoch"` // the broker's registration epoch
	Objects []string      `json:"objects"`
}

func (s *Store) PutIntent(ctx context.Context, in Intent) error         { panic("not built") }
func (s *Store) DeleteIntents(ctx context.Context, ids ...string) error { panic("not built") }
func (s *Store) Intents(ctx context.Context) ([]Intent, error)          { panic("not built") }

// DeletedLog is a partition of a deleted topic whose objects are still to be deleted.
type DeletedLog struct {
	Log     base.LogID
	TopicID base.TopicID
	Topic   string
}

func (s *Store) DeletedLogs(ctx context.Context) ([]DeletedLog, error) { panic("not built") }

// ForgetLog removes the last trace of a deleted log (its root and its tombstone) once no object is left.
func (s *Store) ForgetLog(ctx context.Context, log base.LogID) error { panic("not built") }
