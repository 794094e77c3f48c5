package tiering

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering/segment"
)

// Bucket is what tiering may do to the object store: read, write, list, never delete (I6).
type Bucket interface {
	objstore.Reader
	objstore.Writer
	objstore.Lister
}

// Meta is what tiering needs of the metadata store; *metadata.Store satisfies it.
type Meta interface {
	Image() *metadata.Image
	WatchRoots() *metadata.RootWatch
	Roots(ctx context.Context) (map[base.LogID]metadata.Root, error)
	Root(ctx context.Context, log base.LogID) (metadata.Root, bool, error)
	SwapRoots(ctx context.Context, roots []*metadata.Root, intents ...string) []error
	PutIntent(ctx context.Context, in metadata.Intent) error
	DeleteIntents(ctx context.Context, ids ...string) error
	Intents(ctx context.Context) ([]metadata.Intent, error)
}

// Options wires a Tiering.
type Options struct {
	Bucket Bucket
	Cache  *cache.Cache // block cache of cold reads over the same bucket; nil: reads go past it
	Meta   Meta
	// Source of sealed ranges. Nil: nothing is archived, the Tiering only reads and drops.
	Source Source
	// OnRoot hears of every root, whoever committed it: of all that there are before Follow and Start return, then of each
	// new one, in the order of the commits, from one goroutine, which it must not hold up. Everything below root.TieredEnd may
	// be trimmed (I5), and nothing below root.Start is read any more. What this broker commits itself comes here too, before
	// or after Source.Tiered. Nil: nobody wants to know.
	OnRoot      func(root metadata.Root)
	BrokerID    base.BrokerID
	BrokerEpoch int64 // registration epoch of this incarnation: stands in intents

	Clock  clock.Clock   // default clock.Real
	Logger *slog.Logger  // default: discards
	Meter  metric.Meter  // default: noop
	Tracer trace.Tracer  // default: noop
	NewID  func() string // 32 hex digits, never the same twice; default a random UUID

	MaxUploads         int           // objects that are built and uploaded at the same time; default 4
	UploadBytes        int64         // the most bytes of one round: all its objects may be in memory at a time; default 128 MiB
	MaxObjectBytes     int64         // a longer sealed range is cut into several objects; default 64 MiB, at most UploadBytes
	PackBelowBytes     int64         // shorter ranges share an object; default 4 MiB, at most MaxObjectBytes
	PackLinger         time.Duration // how long a round waits for more while less than PackBelowBytes is there; default 500 ms, negative: not at all
	PutAttempts        int           // of one PUT, then the round is given up and starts anew; default 5
	CommitAttempts     int           // of one manifest commit; default 8
	RetryMin           time.Duration // first pause after an error; default 100 ms
	RetryMax           time.Duration // longest pause; default 10 s
	SpillEntries       int           // working entries of a manifest above which the oldest go to an archive; default 1000
	ManifestsPerCommit int           // manifests that are prepared in memory and written as one object; default 256
	ManifestBytes      int64         // memory for decoded manifests and archives; default 32 MiB
	FooterBytes        int64         // memory for decoded segment footers; default 16 MiB
	ReadAheadBytes     int64         // what a sequential reader prefetches; default 4 MiB
	ReadUnitBytes      int64         // block size of the cache: a read that stays within one needs no copy; default 1 MiB
	GarbageEntries     int           // objects let go of that wait for compaction; more are left to the sweep; default 100,000
	PendingIntents     int           // ids of finished intents whose deletion did not succeed yet; default 10,000
	Layout             segment.Layout
}

// EnsureDefaults fills what is zero.
func (o *Options) EnsureDefaults() {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = metricnoop.NewMeterProvider().Meter("tiering")
	}
	if o.Tracer == nil {
		o.Tracer = tracenoop.NewTracerProvider().Tracer("tiering")
	}
	if o.NewID == nil {
		o.NewID = func() string { id := uuid.New(); return hex.EncodeToString(id[:]) }
	}
	orDefault(&o.MaxUploads, 4)
	orDefault(&o.UploadBytes, 128<<20)
	orDefault(&o.MaxObjectBytes, 64<<20)
	orDefault(&o.PackBelowBytes, 4<<20)
	o.MaxObjectBytes = min(o.MaxObjectBytes, o.UploadBytes)
	o.PackBelowBytes = min(o.PackBelowBytes, o.MaxObjectBytes)
	orDefault(&o.PackLinger, 500*time.Millisecond)
	orDefault(&o.PutAttempts, 5)
	orDefault(&o.CommitAttempts, 8)
	orDefault(&o.RetryMin, 100*time.Millisecond)
	orDefault(&o.RetryMax, 10*time.Second)
	orDefault(&o.SpillEntries, 1000)
	orDefault(&o.ManifestsPerCommit, 256)
	orDefault(&o.ManifestBytes, 32<<20)
	orDefault(&o.FooterBytes, 16<<20)
	orDefault(&o.ReadAheadBytes, 4<<20)
	orDefault(&o.ReadUnitBytes, 1<<20)
	orDefault(&o.GarbageEntries, 100_000)
	orDefault(&o.PendingIntents, 10_000)
}

func orDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Validate reports what is missing or contradictory.
func (o *Options) Validate() error {
	switch {
	case o.Bucket == nil || o.Meta == nil:
		return errors.New("tiering: bucket and metadata store are required")
	case o.MaxUploads < 1 || o.UploadBytes < 1 || o.MaxObjectBytes < 1 || o.PutAttempts < 1 || o.CommitAttempts < 1:
		return errors.New("tiering: upload limits must be positive")
	case o.ManifestsPerCommit < 1:
		return errors.New("tiering: ManifestsPerCommit must be positive")
	case o.SpillEntries < 2:
		return errors.New("tiering: SpillEntries must be at least 2")
	}
	return nil
}

// packBytes is the most that ranges share an object up to: a round of many of them keeps all uploads busy.
func (o *Options) packBytes() int64 {
	return max(o.PackBelowBytes, min(o.MaxObjectBytes, o.UploadBytes/int64(o.MaxUploads)))
}
