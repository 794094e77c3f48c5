package group

import (
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/varvelog/varve/coordinator"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/record"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// Config are the broker settings of groups, by Kafka's names in the comments. They may change between two requests.
type Config struct {
	MinSessionTimeout      time.Duration // group.min.session.timeout.ms, 6 s
	MaxSessionTimeout      time.Duration // group.max.session.timeout.ms, 30 min
	InitialRebalanceDelay  time.Duration // group.initial.rebalance.delay.ms, 3 s
	MaxSize                int           // group.max.size, the largest int32
	OffsetMetadataMaxChars int           // offset.metadata.max.bytes, 4096; Kafka counts UTF-16 units, and so do we
	OffsetsRetention       time.Duration // offsets.retention.minutes, 7 days
	OffsetsRetentionCheck  time.Duration // offsets.retention.check.interval.ms, 10 min
	MaxPendingJoins        int           // ids handed out and not used yet (KIP-394), per group; ours, 10,000
	NewMemberJoinTimeout   time.Duration // how long a joiner may wait for its first generation, 5 min (fixed in Kafka)
}

// DefaultConfig are Kafka's defaults.
func DefaultConfig() Config {
	return Config{
		MinSessionTimeout:      6 * time.Second,
		MaxSessionTimeout:      30 * time.Minute,
		InitialRebalanceDelay:  3 * time.Second,
		MaxSize:                math.MaxInt32,
		OffsetMetadataMaxChars: 4096,
		OffsetsRetention:       7 * 24 * time.Hour,
		OffsetsRetentionCheck:  10 * time.Minute,
		MaxPendingJoins:        10_000,
		NewMemberJoinTimeout:   5 * time.Minute,
	}
}

// Options configure a Coordinator. Log and Partitions are required.
type Options struct {
	// Log is __consumer_offsets.
	Log coordinator.Log
	// Partitions is the number of its partitions; 0 while the topic does not exist.
	Partitions func() int32
	// Config is asked for each request. Default: DefaultConfig.
	Config func() Config
	// TopicExists says whether a topic exists. Default: all do.
	TopicExists func(topic string) bool
	// PartitionExists says whether a partition exists. Default: all do.
	PartitionExists func(topic string, partition int32) bool
	// TopicName resolves the topic ids of OffsetCommit and OffsetFetch 10. Default: no id is known.
	TopicName func(id base.TopicID) (string, bool)
	// TopicID is the id of a topic, zero if it has none. Default: no topic has one.
	TopicID func(topic string) base.TopicID
	// NewMemberSuffix makes the random part of a member id. Default: a UUID.
	NewMemberSuffix func() string
	// Clock is the time seam. Default: the machine's clock.
	Clock clock.Clock
	// Logger gets what an operator must know. Default: none.
	Logger *slog.Logger
	// Meter makes the instruments (varve_group_*, varve_coordinator_*). Default: none.
	Meter metric.Meter
	// Codec is offsets.topic.compression.codec. Default: none.
	Codec record.Codec
	// MailboxRequests, MaxBatchBytes and MaxPendingBytes are limits of each shard; see runtime.Options.
	MailboxRequests, MaxBatchBytes, MaxPendingBytes int
}

// EnsureDefaults fills in what is unset.
func (o *Options) EnsureDefaults() {
	if o.Config == nil {
		o.Config = DefaultConfig
	}
	if o.PartitionExists == nil {
		o.PartitionExists = func(string, int32) bool { return true }
	}
	if o.TopicExists == nil {
		o.TopicExists = func(string) bool { return true }
	}
	if o.TopicName == nil {
		o.TopicName = func(base.TopicID) (string, bool) { return "", false }
	}
	if o.TopicID == nil {
		o.TopicID = func(string) base.TopicID { return base.TopicID{} }
	}
	if o.NewMemberSuffix == nil {
		o.NewMemberSuffix = uuid.NewString
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider().Meter("")
	}
}
