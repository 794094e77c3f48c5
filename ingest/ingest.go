package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// Store is what ingest needs of the hot store; *hot.Store satisfies it, and segment files could.
type Store interface {
	NewWrite() *hot.Write
	NewWriteSize(sizeBytes int) *hot.Write
	Apply(w *hot.Write) (*hot.Commit, error)
	ApplyNoSync(w *hot.Write) error
	TrimAll(trims []hot.Trim) error
	Drop(logs []base.LogID) error
	Logs() ([]hot.Log, error)
	Full() bool
	hotReader
}

// Options configures an Ingest. Store, Meta, Broker and Roots are required.
type Options struct {
	Store  Store
	Meta   *metadata.Store
	Broker base.BrokerID
	// Roots are the manifest roots at start: what is tiered of each log.
	Roots map[base.LogID]metadata.Root

	// TailBytes bounds the in-memory tail of all partitions. Default 64 MiB.
	TailBytes int64
	// UntieredBytes is the pressure bound W of the sizing law (facts/pebble.md): above it the largest open ranges are sealed.
	// Default 32 MiB.
	UntieredBytes int64
	// HotBytes is how much of what is tiered already may stay in Pebble where local.retention.* is not set
	// (varve.hot.bytes). Default 32 MiB.
	HotBytes int64
	// MaxSealBytes bounds one sealed range, hence one object. Default 64 MiB.
	MaxSealBytes int64
	// CheckpointEvery is the period of the 'm' rows: what a crash has to replay beyond the WAL. Default 2 s.
	CheckpointEvery time.Duration
	// RetentionEvery is log.retention.check.interval.ms. Default 5 min.
	RetentionEvery time.Duration
	// ProducerExpiry is producer.id.expiration.ms, which may change at run time. Default 24 h.
	ProducerExpiry func() time.Duration
	// TickEvery is the period of sealing and trimming while there is something to do. Default 200 ms.
	TickEvery time.Duration

	Clock  clock.Clock
	Logger *slog.Logger
	Meter  metric.Meter
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	setDefault(&o.TailBytes, 64<<20)
	setDefault(&o.UntieredBytes, 32<<20)
	setDefault(&o.HotBytes, 32<<20)
	setDefault(&o.MaxSealBytes, 64<<20)
	setDefault(&o.CheckpointEvery, 2*time.Second)
	setDefault(&o.TickEvery, 200*time.Millisecond)
	setDefault(&o.RetentionEvery, 5*time.Minute)
	if o.ProducerExpiry == nil {
		o.ProducerExpiry = func() time.Duration { return 24 * time.Hour }
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
}

func setDefault[T int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Ingest holds the partitions of this broker. New recovers them, Start makes it serve, Stop drains and checkpoints it.
// All methods are safe for concurrent use between Start and Stop.
type Ingest struct {
	opts    Options
	store   Store
	log     *slog.Logger
	clock   clock.Clock
	group   *service.Group
	pipe    *pipeline
	tail    *tail
	work    *workset
	sealedC chan struct{}
	metrics *metrics

	mu struct {
		sync.RWMutex
		parts map[base.LogID]*Partition
	}
}

// New recovers every partition that the hot store knows. It does not touch the bucket.
func New(opts Options) (*Ingest, error) {
	opts.EnsureDefaults()
	g := &Ingest{
		opts: opts, store: opts.Store, log: opts.Logger, clock: opts.Clock,
		group: service.NewGroup(context.Background()), sealedC: make(chan struct{}, 1),
	}
	g.mu.parts = map[base.LogID]*Partition{}
	g.tail = newTail(opts.TailBytes)
	g.pipe = newPipeline(g)
	g.work = newWorkset()
	var err error
	if g.metrics, err = newMetrics(opts.Meter, g); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := g.recover(); err != nil {
		return nil, err
	}
	return g, nil
}

// Start begins to follow the image and to seal, trim and checkpoint.
func (g *Ingest) Start() {
	g.group.Go(g.pipe.run)
	g.group.Go(g.housekeep)
	g.opts.Meta.Subscribe(g.onImage)
}

// Stop waits for what is under way and writes a last checkpoint. Appends after it fail.
func (g *Ingest) Stop() error {
	for _, p := range g.all() {
		p.stop(kerr.NotLeaderForPartition)
	}
	g.pipe.drain()
	g.group.Stop()
	return g.checkpoint(g.all())
}

func (g *Ingest) all() []*Partition {
	g.mu.RLock()
	defer g.mu.RUnlock()
	ps := make([]*Partition, 0, len(g.mu.parts))
	for _, p := range g.mu.parts {
		ps = append(ps, p)
	}
	return ps
}

// Partition finds a partition that this broker leads. kerr.UnknownTopicOrPartition, kerr.NotLeaderForPartition or
// kerr.KafkaStorageError (out of service) otherwise.
func (g *Ingest) Partition(tp base.TopicPartition) (*Partition, error) {
	state, ok := g.opts.Meta.Image().Partition(tp)
	if !ok {
		return nil, fmt.Errorf("partition %s: %w", tp, kerr.UnknownTopicOrPartition)
	}
	if state.Leader != g.opts.Broker {
		return nil, fmt.Errorf("partition %s: %w", tp, kerr.NotLeaderForPartition)
	}
	p := g.byLog(state.Log)
	if p == nil {
		var err error
		if p, err = g.open(state); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (g *Ingest) byLog(id base.LogID) *Partition {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.mu.parts[id]
}

// open creates the log of a partition that the image shows and the hot store does not know yet.
func (g *Ingest) open(state *metadata.Partition) (*Partition, error) {
	image := g.opts.Meta.Image()
	current, topic, ok := image.Log(state.Log)
	if !ok {
		return nil, fmt.Errorf("partition %s: %w", state.TP, kerr.UnknownTopicOrPartition)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.mu.parts[state.Log]; p != nil {
		return p, nil
	}
	p := newPartition(g, state.Log, g.opts.Roots[state.Log])
	w := g.store.NewWrite()
	p.mu.Lock()
	w.SetMeta(p.log, p.metaLocked())
	p.mu.Unlock()
	if err := g.store.ApplyNoSync(w); err != nil {
		return nil, fmt.Errorf("create log of %s: %w", state.TP, err)
	}
	p.lead(current, topic)
	g.mu.parts[state.Log] = p
	return p, nil
}

// onImage follows the image: new leader epochs and configurations, topics that went away.
func (g *Ingest) onImage(old, image *metadata.Image) {
	var gone []base.LogID
	for _, p := range g.all() {
		state, topic, ok := image.Log(p.log)
		switch {
		case !ok:
			p.stop(kerr.UnknownTopicOrPartition)
			gone = append(gone, p.log)
		case state.Leader == g.opts.Broker:
			p.lead(state, topic)
		default:
			p.stop(kerr.NotLeaderForPartition)
		}
	}
	if len(gone) > 0 {
		g.drop(gone)
	}
	if old == nil {
		g.openLed(image)
	}
}

// openLed opens, at start, what this broker leads and the hot store has lost or never had.
func (g *Ingest) openLed(image *metadata.Image) {
	for _, t := range image.Topics() {
		for i := range t.Partitions {
			if t.Partitions[i].Leader != g.opts.Broker {
				continue
			}
			if _, err := g.Partition(t.Partitions[i].TP); err != nil {
				g.log.Error("open partition", slog.String("partition", t.Partitions[i].TP.String()), slog.Any("err", err))
			}
		}
	}
}

func (g *Ingest) drop(logs []base.LogID) {
	g.mu.Lock()
	for _, id := range logs {
		if p := g.mu.parts[id]; p != nil {
			g.tail.dropPartition(p)
			delete(g.mu.parts, id)
		}
	}
	g.mu.Unlock()
	if err := g.store.Drop(logs); err != nil {
		g.log.Error("drop deleted logs", slog.Int("logs", len(logs)), slog.Any("err", err))
	}
}
