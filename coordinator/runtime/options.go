package runtime

import (
	"log/slog"
	"time"

	"github.com/varvelog/varve/coordinator"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/record"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// Machine is the replicated state of one shard. Its methods, and the functions that are given to Call, run in the
// shard's goroutine, one at a time.
type Machine interface {
	// Replay applies one committed batch while the shard loads. Batches of other machines' records and of unknown types are
	// skipped; bytes that cannot be what was written give a marked corruption.
	Replay(b record.Batch) error
	// Loaded is called once, after the last Replay and before the first request.
	Loaded(fx *Effects)
}

// Options configure a Runtime.
type Options[M Machine] struct {
	// Name tells the runtimes of a broker apart in logs and metrics: "group", "txn".
	Name string
	// Log is the internal topic.
	Log coordinator.Log
	// NewMachine makes the empty state of a partition's shard.
	NewMachine func(partition int32) M
	// Clock is the time seam. Default: the machine's clock.
	Clock clock.Clock
	// Logger gets what an operator must know. Default: none.
	Logger *slog.Logger
	// Meter makes the instruments (varve_coordinator_*). Default: none.
	Meter metric.Meter
	// Codec compresses the batches that are appended (offsets.topic.compression.codec). Default: none.
	Codec record.Codec
	// MailboxRequests bounds the requests that wait for a shard; callers beyond it wait for room. Default 1024.
	MailboxRequests int
	// MaxBatchBytes bounds one appended batch, before compression; a single step's records may exceed it, and then the
	// topic's max.message.bytes decides. Default 512 KiB.
	MaxBatchBytes int
	// MaxPendingBytes bounds what a shard gathers while the log is slow; beyond it the shard takes no request (I10).
	// Default 8 MiB.
	MaxPendingBytes int
	// ReloadBackoff is the pause after a replay that ended with an error. Default 1 s.
	ReloadBackoff time.Duration
}

// EnsureDefaults fills in what is unset.
func (o *Options[M]) EnsureDefaults() {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider().Meter("")
	}
	if o.MailboxRequests <= 0 {
		o.MailboxRequests = 1024
	}
	if o.MaxBatchBytes <= 0 {
		o.MaxBatchBytes = 512 << 10
	}
	if o.MaxPendingBytes <= 0 {
		o.MaxPendingBytes = 8 << 20
	}
	if o.ReloadBackoff <= 0 {
		o.ReloadBackoff = time.Second
	}
}
