package txn

import (
	"context"
	"log/slog"
	"time"

	"github.com/varvelog/varve/coordinator"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// Config are the broker settings of transactions, by Kafka's names in the comments. They may change between two requests.
// There is none for two-phase commit (KIP-939): it needs InitProducerId 6, which is not served.
type Config struct {
	MaxTimeout        time.Duration // transaction.max.timeout.ms, 15 min
	IDExpiration      time.Duration // transactional.id.expiration.ms, 7 days
	TimeoutCheck      time.Duration // transaction.abort.timed.out.transaction.cleanup.interval.ms, 10 s
	IDExpirationCheck time.Duration // transaction.remove.expired.transaction.cleanup.interval.ms, 1 h
}

// DefaultConfig are Kafka's defaults.
func DefaultConfig() Config {
	return Config{
		MaxTimeout: 15 * time.Minute, IDExpiration: 7 * 24 * time.Hour, TimeoutCheck: 10 * time.Second, IDExpirationCheck: time.Hour,
	}
}

// Marker ends a transaction on the partitions that it was written to (WriteTxnMarkers). From transaction version 2 on its epoch is
// the one after that of the transaction's records.
type Marker struct {
	ProducerID         base.ProducerID
	ProducerEpoch      int16
	CoordinatorEpoch   base.LeaderEpoch // of the partition of __transaction_state
	TransactionVersion int16
	Commit             bool
}

// Options configure a Coordinator. Log, Partitions, OffsetsPartitions, NextProducerID and WriteMarkers are required.
type Options struct {
	// Log is __transaction_state.
	Log coordinator.Log
	// Partitions is the number of its partitions; 0 while the topic does not exist.
	Partitions func() int32
	// OffsetsPartitions is the number of partitions of __consumer_offsets; 0 while the topic does not exist.
	OffsetsPartitions func() int32
	// NextProducerID returns an id that was never used. It may block and is never called by a shard.
	NextProducerID func(context.Context) (base.ProducerID, error)
	// WriteMarkers has the leaders of the partitions write a marker and returns what became of each, in their order: nil where it
	// is committed, INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED where it may never be, anything else where it is
	// to be tried again. A partition may get the same marker more than once. It is called from several goroutines; it ends
	// with the context, and by itself where a leader does not answer.
	WriteMarkers func(context.Context, Marker, []base.TopicPartition) []error
	// PartitionExists says whether a partition exists: one that does not cannot be added, and needs no marker. Default: all do.
	PartitionExists func(topic string, partition int32) bool
	// Config is asked for each request. Default: DefaultConfig.
	Config func() Config
	// MaxMarkerWrites bounds the calls of WriteMarkers at a time; other transactions wait for theirs. Default 1024.
	MaxMarkerWrites int
	// MarkerBackoff is the pause before markers, or a Complete record, that could not be written are tried again. Default 100 ms.
	MarkerBackoff time.Duration
	// Clock is the time seam. Default: the machine's clock.
	Clock clock.Clock
	// Logger gets what an operator must know. Default: none.
	Logger *slog.Logger
	// Meter makes the instruments (varve_txn_*, varve_coordinator_*). Default: none.
	Meter metric.Meter
	// MailboxRequests, MaxBatchBytes and MaxPendingBytes are limits of each shard; see runtime.Options.
	MailboxRequests, MaxBatchBytes, MaxPendingBytes int
}

// EnsureDefaults fills in what is unset.
func (o *Options) EnsureDefaults() {
	if o.PartitionExists == nil {
		o.PartitionExists = func(string, int32) bool { return true }
	}
	if o.Config == nil {
		o.Config = DefaultConfig
	}
	if o.MaxMarkerWrites <= 0 {
		o.MaxMarkerWrites = 1024
	}
	if o.MarkerBackoff <= 0 {
		o.MarkerBackoff = 100 * time.Millisecond
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
