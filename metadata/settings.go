package metadata

// TopicConfig is a topic's effective configuration, parsed. Kafka's names and units; -1 and -2 keep Kafka's meaning.
// The tag of a field names its setting; the fields without one are derived.
type TopicConfig struct {
	Delete, Compact        bool              // cleanup.policy
	RetentionMs            int64             `config:"retention.ms"`
	RetentionBytes         int64             `config:"retention.bytes"`
	LocalRetentionMs       int64             `config:"local.retention.ms"`
	LocalRetentionBytes    int64             `config:"local.retention.bytes"`
	SegmentBytes           int32             `config:"segment.bytes"`
	SegmentMs              int64             `config:"segment.ms"`
	SegmentJitterMs        int64             `config:"segment.jitter.ms"`
	MaxMessageBytes        int32             `config:"max.message.bytes"`
	MinInsyncReplicas      int32             `config:"min.insync.replicas"`
	LogAppendTime          bool              // message.timestamp.type
	TimestampBeforeMaxMs   int64             `config:"message.timestamp.before.max.ms"`
	TimestampAfterMaxMs    int64             `config:"message.timestamp.after.max.ms"`
	Compression            string            `config:"compression.type"`
	CompressionGzipLevel   int               `config:"compression.gzip.level"`
	CompressionLZ4Level    int               `config:"compression.lz4.level"`
	CompressionZstdLevel   int               `config:"compression.zstd.level"`
	DeleteRetentionMs      int64             `config:"delete.retention.ms"`
	MinCompactionLagMs     int64             `config:"min.compaction.lag.ms"`
	MaxCompactionLagMs     int64             `config:"max.compaction.lag.ms"`
	MinCleanableDirtyRatio float64           `config:"min.cleanable.dirty.ratio"`
	RemoteStorageEnable    bool              `config:"remote.storage.enable"` // default true
	RemoteCopyDisable      bool              `config:"remote.log.copy.disable"`
	RemoteDeleteOnDisable  bool              `config:"remote.log.delete.on.disable"`
	UncleanLeaderElection  bool              `config:"unclean.leader.election.enable"`
	SyncRelaxed            bool              // varve.sync=relaxed
	LeaderThrottled        ThrottledReplicas // leader.replication.throttled.replicas
	FollowerThrottled      ThrottledReplicas // follower.replication.throttled.replicas
	TieringMaxLagMs        int64             `config:"varve.tiering.max.lag.ms"`
	TieringMaxLagBytes     int64             `config:"varve.tiering.max.lag.bytes"`
}

// BrokerConfig is a broker's effective configuration: its own dynamic values, the cluster default, what it was started
// with (--set, flags), and the defaults of the tables, in this order. Get reads any setting by name; the fields are what
// the code uses, in the units of the setting.
type BrokerConfig struct {
	values brokerValues

	Rack string `config:"broker.rack"`

	// Topics.
	NumPartitions            int32 `config:"num.partitions"`
	DefaultReplicationFactor int16 `config:"default.replication.factor"`
	AutoCreateTopics         bool  `config:"auto.create.topics.enable"`
	DeleteTopicEnable        bool  `config:"delete.topic.enable"`
	MinInsyncReplicas        int32 `config:"min.insync.replicas"`
	MaxDescribePartitions    int32 `config:"max.request.partition.size.limit"`

	// Connections and requests.
	MessageMaxBytes           int32  `config:"message.max.bytes"`
	FetchMaxBytes             int32  `config:"fetch.max.bytes"`
	SocketRequestMaxBytes     int32  `config:"socket.request.max.bytes"`
	SocketSendBufferBytes     int32  `config:"socket.send.buffer.bytes"`
	SocketReceiveBufferBytes  int32  `config:"socket.receive.buffer.bytes"`
	QueuedMaxRequests         int32  `config:"queued.max.requests"`
	QueuedMaxRequestBytes     int64  `config:"queued.max.request.bytes"` // -1: a share of --memory
	ConnectionsMaxIdleMs      int64  `config:"connections.max.idle.ms"`
	MaxConnections            int32  `config:"max.connections"`
	MaxConnectionsPerIP       int32  `config:"max.connections.per.ip"`
	MaxConnectionsPerIPOver   string `config:"max.connections.per.ip.overrides"`
	MaxConnectionCreationRate int32  `config:"max.connection.creation.rate"`
	FetchSessionCacheSlots    int32  `config:"max.incremental.fetch.session.cache.slots"`
	RequestTimeoutMs          int32  `config:"request.timeout.ms"`
	RemoteFetchMaxWaitMs      int32  `config:"remote.fetch.max.wait.ms"`
	RemoteListOffsetsMs       int64  `config:"remote.list.offsets.request.timeout.ms"`

	// Groups, offsets and producers.
	OffsetsTopicPartitions            int32 `config:"offsets.topic.num.partitions"`
	OffsetsTopicReplicationFactor     int16 `config:"offsets.topic.replication.factor"`
	OffsetsTopicSegmentBytes          int32 `config:"offsets.topic.segment.bytes"`
	OffsetMetadataMaxBytes            int32 `config:"offset.metadata.max.bytes"`
	OffsetsRetentionMinutes           int32 `config:"offsets.retention.minutes"`
	OffsetsRetentionCheckIntervalMs   int64 `config:"offsets.retention.check.interval.ms"`
	OffsetsCommitTimeoutMs            int32 `config:"offsets.commit.timeout.ms"`
	GroupInitialRebalanceDelayMs      int32 `config:"group.initial.rebalance.delay.ms"`
	GroupMinSessionTimeoutMs          int32 `config:"group.min.session.timeout.ms"`
	GroupMaxSessionTimeoutMs          int32 `config:"group.max.session.timeout.ms"`
	GroupMaxSize                      int32 `config:"group.max.size"`
	ProducerIDExpirationMs            int32 `config:"producer.id.expiration.ms"`
	ProducerIDExpirationCheckMs       int32 `config:"producer.id.expiration.check.interval.ms"`
	TransactionMaxTimeoutMs           int32 `config:"transaction.max.timeout.ms"`
	TransactionalIDExpirationMs       int32 `config:"transactional.id.expiration.ms"`
	TransactionTopicPartitions        int32 `config:"transaction.state.log.num.partitions"`
	TransactionTopicReplicationFactor int16 `config:"transaction.state.log.replication.factor"`
	TransactionTopicMinISR            int32 `config:"transaction.state.log.min.isr"`
	TransactionTopicSegmentBytes      int32 `config:"transaction.state.log.segment.bytes"`

	// Logs. What topics inherit is in their TopicConfig.
	LogSegmentBytes             int32 `config:"log.segment.bytes"`
	LogRetentionCheckIntervalMs int64 `config:"log.retention.check.interval.ms"`
	ReplicaLagTimeMaxMs         int64 `config:"replica.lag.time.max.ms"`

	// Replication quotas (KIP-73), in bytes per second; math.MaxInt64: none.
	LeaderThrottledRate, FollowerThrottledRate int64
	QuotaWindows                               int32 `config:"replication.quota.window.num"`
	QuotaWindowSeconds                         int32 `config:"replication.quota.window.size.seconds"`

	// Ours.
	HotBytes             int64   `config:"varve.hot.bytes"`
	BalanceReplicas      bool    `config:"varve.balance.replicas.enable"`
	BalanceHot           bool    `config:"varve.balance.hot.enable"`
	BalanceHotIntervalMs int64   `config:"varve.balance.hot.interval.ms"`
	BalanceHotSlackRatio float64 `config:"varve.balance.hot.slack.ratio"`
	BalanceHotSlackBytes int64   `config:"varve.balance.hot.slack.bytes"`
	BalanceHotRate       int64   `config:"varve.balance.hot.bytes.per.second"`
	DiskReserveBytes     int64   `config:"varve.disk.reserve.bytes"`
	TailBytes            int64   `config:"varve.tail.bytes"` // -1: a share of --memory
	TieringSegmentBytes  int64   `config:"varve.tiering.segment.bytes"`
	TieringUploads       int     `config:"varve.tiering.uploads"`
	CacheMemoryBytes     int64   `config:"varve.cache.memory.bytes"` // -1: a share of --memory
	CacheDiskBytes       int64   `config:"varve.cache.disk.bytes"`   // -1: 1 GiB, none where the object store is a directory
	FetchColdReads       int     `config:"varve.fetch.cold.reads"`
	ScrubIntervalMs      int64   `config:"varve.scrub.interval.ms"`
	GCGraceMs            int64   `config:"varve.gc.grace.ms"`
}

// Get returns the effective value of any broker setting by its name; ok is false where it is null or unknown.
func (b *BrokerConfig) Get(name string) (value string, ok bool) { return b.values.value(name) }
