package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/ingest/replica"
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
	Reclaim() error
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
	// PendingBytes bounds the appends that wait for the disk, answered or not. At the bound Append blocks. Default 128 MiB.
	PendingBytes int64
	// ProducersPerPartition bounds the idempotent producers that a partition remembers; those that were idle the longest are
	// forgotten first, as if producer.id.expiration.ms had passed. Default 10,000.
	ProducersPerPartition int64
	// ProducerExpiry is producer.id.expiration.ms, which may change at run time. Default 24 h.
	ProducerExpiry func() time.Duration
	// ReplicaLagMax is replica.lag.time.max.ms: a follower that has not caught up for so long leaves the ISR. Default 30 s.
	ReplicaLagMax time.Duration
	// EagerHighWatermark tells followers of each new high watermark at once: where consumers read from them (KIP-392).
	EagerHighWatermark bool
	// Replication makes this broker follow others; nil: it follows nobody.
	Replication *Replication
	// TickEvery is the period of sealing and trimming while there is something to do. Default 50 ms.
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
	setDefault(&o.PendingBytes, 128<<20)
	setDefault(&o.ProducersPerPartition, 10_000)
	setDefault(&o.CheckpointEvery, 2*time.Second)
	setDefault(&o.TickEvery, 50*time.Millisecond)
	setDefault(&o.RetentionEvery, 5*time.Minute)
	setDefault(&o.ReplicaLagMax, 30*time.Second)
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
	isr     *isrWriter
	follows *replicator // nil where Options.Replication is
	repairs *repairs
	metrics *metrics
	// throttles are the replication quotas.
	throttles throttles
	// live is the brokers of the image that onImage saw last.
	live atomic.Pointer[replica.Live]
	// reclaimable is set where rows were deleted whose space Pebble may still hold.
	reclaimable atomic.Bool
	ending      *service.Group // Stop itself
	following   sync.Mutex     // an image

	mu struct {
		sync.RWMutex
		parts   map[base.LogID]*Partition
		opened  map[base.LogID]int64         // by requests since: the revision of the image that onImage has yet to come to
		gone    []*Partition                 // not on this broker any more; housekeeping removes their rows
		going   map[base.LogID]int           // how many of gone, or of those whose rows are being removed, a log has
		roots   map[base.LogID]metadata.Root // what is tiered, also of logs that are not open
		stopped bool
	}
}

// New recovers every partition that the hot store knows. It does not touch the bucket.
func New(opts Options) (*Ingest, error) {
	opts.EnsureDefaults()
	g := &Ingest{
		opts: opts, store: opts.Store, log: opts.Logger, clock: opts.Clock,
		group: service.NewGroup(context.Background()), ending: service.NewGroup(context.Background()), sealedC: make(chan struct{}, 1),
	}
	g.mu.parts, g.mu.roots, g.mu.going = map[base.LogID]*Partition{}, map[base.LogID]metadata.Root{}, map[base.LogID]int{}
	g.mu.opened = map[base.LogID]int64{}
	maps.Copy(g.mu.roots, opts.Roots)
	g.tail = newTail(opts.TailBytes)
	g.pipe = newPipeline(g)
	g.work, g.throttles = newWorkset(), newThrottles()
	g.isr, g.repairs = newISRWriter(g), newRepairs(g)
	if opts.Replication != nil {
		g.follows = newReplicator(g, *opts.Replication)
	}
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
	g.group.Go(g.pipe.watch)
	g.group.Go(g.housekeep)
	g.group.Go(g.tickReplicas)
	g.group.Go(g.repairs.run)
	for range proposers {
		g.group.Go(g.isr.run)
	}
	if g.follows != nil {
		g.group.Go(g.follows.run)
	}
	g.opts.Meta.Subscribe(g.onImage)
}

// Resign ends all leaderships for good: who waits for the high watermark is answered kerr.NotLeaderForPartition. Stop follows.
func (g *Ingest) Resign() {
	g.unfollow()
	for _, p := range g.all() {
		p.stop(kerr.NotLeaderForPartition)
	}
}

// unfollow lets no image make a partition lead from now on.
func (g *Ingest) unfollow() {
	g.following.Lock() // an image that is being followed comes first
	defer g.following.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.stopped = true
}

// Stop waits for what is under way and writes a last checkpoint. Appends after it fail. Where the disk is full and stays so
// for fullPatience it gives up: what was not acknowledged may be lost, as in a crash.
func (g *Ingest) Stop() error {
	g.unfollow()
	g.pipe.close()
	done := make(chan error, 1)
	g.ending.Go(func(context.Context) {
		g.pipe.drain()
		for _, p := range g.all() {
			p.stop(kerr.NotLeaderForPartition)
		}
		g.group.Stop()
		done <- g.checkpoint(g.all())
	})
	const fullPatience = 10 // ticks
	for full := 0; full < fullPatience; {
		t := g.clock.NewTimer(g.opts.TickEvery)
		select {
		case err := <-done:
			t.Stop()
			return err
		case <-t.C:
		}
		if full++; !g.store.Full() {
			full = 0
		}
	}
	return fmt.Errorf("stop ingest: %w", hot.ErrDiskFull)
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
	return g.partitionOf(tp, base.TopicID{})
}

// shown is a partition as the image has it, of the topic with the id where that is not zero.
func (g *Ingest) shown(tp base.TopicPartition, id base.TopicID) (*metadata.Partition, error) {
	image := g.opts.Meta.Image()
	if t, ok := image.Topic(tp.Topic); !id.IsZero() && (!ok || t.ID != id) {
		return nil, fmt.Errorf("partition %s: topic id %s: %w", tp, id, kerr.UnknownTopicID)
	}
	state, ok := image.Partition(tp)
	if !ok {
		return nil, fmt.Errorf("partition %s: %w", tp, kerr.UnknownTopicOrPartition)
	}
	return state, nil
}

func (g *Ingest) partitionOf(tp base.TopicPartition, id base.TopicID) (*Partition, error) {
	state, err := g.shown(tp, id)
	if err != nil {
		return nil, err
	}
	if state.Leader != g.opts.Broker {
		return nil, fmt.Errorf("partition %s: %w", tp, kerr.NotLeaderForPartition)
	}
	p := g.byLog(state.Log)
	if p == nil {
		if p, err = g.open(state); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Replica is a partition that this broker leads or follows, nil where it has none.
func (g *Ingest) Replica(id base.LogID) *Partition { return g.byLog(id) }

func (g *Ingest) byLog(id base.LogID) *Partition {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.mu.parts[id]
}

// open creates the log of a partition that the image shows and the hot store does not know yet. It writes nothing: readers
// of every partition would wait for a full disk behind Ingest.mu. The first append writes the 'm' row.
func (g *Ingest) open(state *metadata.Partition) (*Partition, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Under the lock: an image without the topic whose onImage looked at the partitions before this one is seen here.
	image := g.opts.Meta.Image()
	current, topic, ok := image.Log(state.Log)
	if !ok {
		return nil, fmt.Errorf("partition %s: %w", state.TP, kerr.UnknownTopicOrPartition)
	}
	if p := g.mu.parts[state.Log]; p != nil {
		return p, nil
	}
	if g.mu.stopped {
		return nil, fmt.Errorf("partition %s: %w", state.TP, kerr.NotLeaderForPartition)
	}
	p := newPartition(g, state.Log, g.mu.roots[state.Log])
	p.mu.former = g.mu.going[state.Log] > 0
	switch role := g.roleOf(image, current); {
	case role == roleNone:
		return nil, fmt.Errorf("partition %s: %w", state.TP, kerr.NotLeaderForPartition)
	case role == roleFollower:
		p.beginEmpty()
	}
	g.assign(p, image, current, topic)
	g.mu.parts[state.Log], g.mu.opened[state.Log] = p, image.Revision()
	return p, nil
}

// onImage follows the image: new leader epochs and configurations, brokers that came or went, topics that went away.
func (g *Ingest) onImage(old, image *metadata.Image) {
	g.following.Lock()
	defer g.following.Unlock()
	g.mu.RLock()
	stopped := g.mu.stopped
	g.mu.RUnlock()
	if stopped {
		return
	}
	all := old == nil || !slices.EqualFunc(old.AllBrokers(), image.AllBrokers(), func(a, b metadata.Broker) bool {
		return a.ID == b.ID && a.Epoch == b.Epoch && a.Fenced == b.Fenced && a.Full == b.Full
	})
	if all {
		live := liveOf(image)
		g.live.Store(&live)
		g.followAll(image)
	}
	delta := metadata.DeltaOf(old, image)
	g.throttles.follow(old, image, delta.Changed, g.clock.Now())
	for _, t := range delta.Changed {
		g.followTopic(old, image, t, all)
	}
	var gone []base.LogID
	for _, t := range delta.Deleted {
		for i := range t.Partitions {
			if p := g.byLog(t.Partitions[i].Log); p != nil {
				p.stop(kerr.UnknownTopicOrPartition)
				gone = append(gone, p.log)
			}
		}
	}
	g.forget(append(gone, g.unseen(image)...))
	g.forgetRoots(delta.Deleted)
}

func (g *Ingest) forgetRoots(deleted []*metadata.Topic) {
	if len(deleted) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range deleted {
		for i := range t.Partitions {
			delete(g.mu.roots, t.Partitions[i].Log)
		}
	}
}

// followAll looks at every partition that is here, but for those that a request has opened by a later image: this one may lack them.
func (g *Ingest) followAll(image *metadata.Image) {
	var gone []base.LogID
	for _, p := range g.all() {
		state, topic, ok := image.Log(p.log)
		switch {
		case ok && g.assign(p, image, state, topic), !ok && g.openedAfter(p.log, image):
			continue
		case !ok:
			p.stop(kerr.UnknownTopicOrPartition)
		}
		gone = append(gone, p.log)
	}
	g.forget(gone)
}

// followTopic looks at the partitions of a topic that differ from the image before, and opens what this broker follows and, at
// start, what it leads and the hot store has lost or never had; later a partition that it leads is opened by its first request.
func (g *Ingest) followTopic(old, image *metadata.Image, t *metadata.Topic, seen bool) {
	var was *metadata.Topic
	if old != nil {
		was, _ = old.TopicByID(t.ID)
	}
	var gone []base.LogID
	for i := range t.Partitions {
		state := &t.Partitions[i]
		if was != nil && i < len(was.Partitions) && was.Partitions[i].Rev == state.Rev && was.Config == t.Config {
			continue
		}
		p := g.byLog(state.Log)
		switch role := g.roleOf(image, state); {
		case p != nil && seen:
		case p != nil:
			if !g.assign(p, image, state, t) {
				gone = append(gone, p.log)
			}
		case role == roleFollower, role == roleLeader && old == nil:
			if _, err := g.open(state); err != nil {
				g.log.Warn("open partition", slog.String("partition", state.TP.String()), slog.Any("err", err))
			}
		}
	}
	g.forget(gone)
}

// assign makes a partition lead, or follow, or stop, as an image has it. It reports whether it stays on this broker.
func (g *Ingest) assign(p *Partition, image *metadata.Image, state *metadata.Partition, topic *metadata.Topic) (stays bool) {
	if p.knows(state.Rev) {
		return true
	}
	if p.isDamaged() && len(state.Replicas) > 1 {
		g.repairs.push(p.log, state.TP)
	}
	leader := base.BrokerID(-1)
	role := g.roleOf(image, state)
	switch role {
	case roleLeader:
		g.follows.want(p.log, followerOf(state, -1))
		p.lead(state, topic, *g.live.Load())
		return true
	case roleFollower:
		p.follow(state, topic)
		if state.Leader != g.opts.Broker {
			leader = state.Leader
		}
	default:
		p.stop(kerr.NotLeaderForPartition)
	}
	g.follows.want(p.log, followerOf(state, leader))
	return role == roleFollower
}
