package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/httpapi"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/internal/telemetry"
	"github.com/varvelog/varve/kafka"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller/run"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/open"
	"github.com/varvelog/varve/tiering"
)

// Seams are what a test replaces. Zero fields are the real thing.
type Seams struct {
	Clock  clock.Clock
	Logger *slog.Logger
	Listen func(network, addr string) (net.Listener, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // to other brokers
	Bucket objstore.Bucket                                                   // instead of what Config.ObjectStore names
	Quorum Quorum                                                            // instead of etcd; Stop does not close it
	FS     vfs.FS                                                            // of the hot store
	// LogSyncEvery is the least time between two syncs of the hot store's log; 0: none.
	LogSyncEvery time.Duration
	Version      string
}

// Quorum is where the cluster's metadata lives, and who of its members leads; etcdkv.Member satisfies it.
type Quorum interface {
	KV() metadata.KV
	// Leadership tells whether this broker's member is raft's leader; the channel is closed at the next change.
	Leadership() (leading bool, changed <-chan struct{})
	// GiveLeadership makes another member the leader, where there is one.
	GiveLeadership(ctx context.Context) error
	// Stopped is closed when this broker's member has ended by itself.
	Stopped() <-chan struct{}
	Close() error
}

// Broker is one broker in this process: New, Start, Stop, once each.
type Broker struct {
	cfg     Config
	seams   Seams
	log     *slog.Logger
	mods    modules
	failed  chan error
	failure sync.Once
	abort   context.CancelCauseFunc // ends Start
	serving atomic.Bool
	epoch   int64 // of this registration

	lock     *os.File
	identity identity
	// bucketNoted is the revision at which this process told the cluster which directory bucket it uses, 0: it did not.
	bucketNoted atomic.Int64
	memory      *service.Group
	telemetry   *telemetry.Telemetry
	http        *httpapi.Server
	listener    net.Listener
	bucket      objstore.Bucket // claim, which checks before it writes
	claim       *claim
	opened      chan struct{} // closed when the bucket is open
	quorum      Quorum
	voting      *service.Group // waits for the end of the own etcd member
	meta        *metadata.Store
	roles       *service.Group // what follows etcd's leadership
	controller  *run.Controller
	member      *membership
	beatNow     chan struct{} // one token: the next heartbeat is due
	cached      atomic.Bool   // cache and hot are there
	hot         *hot.Store
	cache       *cache.Cache
	ingest      *ingest.Ingest
	tiering     *tiering.Tiering
	tiered      chan struct{} // closed when tiering has started
	compact     *compaction.Runner
	fetch       *fetch.Service
	groups      *group.Coordinator
	kafka       *kafka.Server
}

// New checks the configuration; nothing is started or written.
func New(cfg Config, seams Seams) (*Broker, error) {
	if err := cfg.EnsureDefaults(); err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := metadata.ValidateStatic(cfg.Set); err != nil {
		return nil, err
	}
	if err := open.CheckURL(cfg.ObjectStore); err != nil {
		return nil, fmt.Errorf("--object-store: %w", err)
	}
	if seams.Clock == nil {
		seams.Clock = clock.Real{}
	}
	if seams.Logger == nil {
		seams.Logger = slog.Default()
	}
	if seams.Listen == nil {
		seams.Listen = net.Listen
	}
	if seams.Dial == nil {
		seams.Dial = (&net.Dialer{}).DialContext
	}
	b := &Broker{cfg: cfg, seams: seams, log: seams.Logger, failed: make(chan error, 1), opened: make(chan struct{}), tiered: make(chan struct{}), beatNow: make(chan struct{}, 1)}
	b.claim = &claim{slot: make(chan struct{}, 1)}
	b.mods = modules{table: b.table(), log: b.log, clock: b.seams.Clock}
	return b, nil
}

// table is the modules and what each needs (style B.11). Constructors stay with their packages; start.go calls them.
func (b *Broker) table() []module {
	bucketNeeds := []string{"lock", "telemetry"}
	if b.cfg.directoryBucket() {
		bucketNeeds = append(bucketNeeds, "image") // expectBucket asks; others are looked for meanwhile
	}
	return []module{
		{"lock", nil, b.startLock, b.stopLock},
		{"telemetry", nil, b.startTelemetry, func(ctx context.Context) error { return b.telemetry.Shutdown(ctx) }},
		{"http", []string{"telemetry"}, b.startHTTP, func(ctx context.Context) error { return b.http.Stop(ctx) }},
		{"memory", []string{"hot"}, b.startMemory, b.stopMemory},
		{"listener", []string{"lock"}, b.startListener, b.stopListener},
		{"bucket", bucketNeeds, b.startBucket, func(context.Context) error { return b.bucket.Close() }},
		{"cache", []string{"bucket"}, b.startCache, func(context.Context) error { return b.cache.Close() }},
		{"quorum", []string{"lock", "telemetry"}, b.startQuorum, b.stopQuorum},
		{"image", []string{"quorum", "listener", "telemetry"}, b.startImage, b.stopImage},
		{"claim", []string{"image"}, b.startClaim, nil},
		{"metadata", []string{"image", "claim", "hot"}, b.startMetadata, nil},
		{"controller", []string{"metadata"}, b.startController, b.stopController},
		{"hot", []string{"lock", "telemetry"}, b.startHot, func(context.Context) error { return b.hot.Close() }},
		{"ingest", []string{"metadata", "hot"}, b.startIngest, func(context.Context) error { return b.ingest.Stop() }},
		{"tiering", []string{"ingest", "cache"}, b.startTiering, b.stopTiering},
		{"compaction", []string{"tiering"}, b.startCompaction, b.stopCompaction},
		{"fetch", []string{"tiering"}, b.startFetch, nil},
		{"groups", []string{"fetch"}, b.startGroups, func(ctx context.Context) error { return b.groups.Stop(ctx) }},
		{"kafka", []string{"groups", "http", "controller"}, b.startKafka, b.stopKafka},
		{"membership", []string{"kafka"}, b.startMembership, b.stopMembership},
	}
}

// Start returns once the broker serves. On an error, which a failure (see Failed) before that is too, nothing is left running.
func (b *Broker) Start(ctx context.Context) error {
	begin := b.seams.Clock.Now()
	ctx, b.abort = context.WithCancelCause(ctx)
	defer b.abort(nil)
	if err := b.mods.start(ctx); err != nil {
		return err
	}
	b.log.Info("broker serves", slog.Int("node_id", int(b.cfg.NodeID)), slog.String("kafka", b.KafkaAddr()),
		slog.Duration("after", b.seams.Clock.Now().Sub(begin).Round(time.Millisecond)))
	return nil
}

// Stop ends everything in the reverse order; what was acknowledged is on disk when it returns.
func (b *Broker) Stop(ctx context.Context) error {
	b.serving.Store(false)
	return b.mods.stop(ctx)
}

// Failed yields the first failure that the broker cannot go on with.
func (b *Broker) Failed() <-chan error { return b.failed }

func (b *Broker) fail(err error) {
	b.serving.Store(false)
	b.failure.Do(func() {
		b.log.Error("broker failed", slog.Any("err", err))
		b.failed <- err // there is room: it is the only one
		b.abort(err)
	})
}

// KafkaAddr is where the Kafka listener is.
func (b *Broker) KafkaAddr() string { return b.listener.Addr().String() }

// HTTPAddr is where the HTTP listener is.
func (b *Broker) HTTPAddr() string { return b.http.Addr() }

// Config is the configuration with its defaults filled in.
func (b *Broker) Config() Config { return b.cfg }

// ready is /readyz: why the broker cannot serve everything now.
func (b *Broker) ready() error {
	switch {
	case !b.serving.Load():
		return errors.New("the broker is starting or stopping")
	case b.hot.Full():
		return errors.New("the data disk is full: produce is refused until there is room")
	}
	return nil
}

func (b *Broker) startLock(context.Context) error {
	if err := os.MkdirAll(b.cfg.DataDir, 0o755); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.cfg.DataDir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return fmt.Errorf("data directory %s is in use by another process: stop it, or choose another --data-dir", b.cfg.DataDir)
	}
	b.lock = f
	if err := b.identify(); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

func (b *Broker) stopLock(context.Context) error { return b.lock.Close() }

// startMemory holds the Go runtime to --memory (I10).
func (b *Broker) startMemory(ctx context.Context) error {
	debug.SetMemoryLimit(b.cfg.Memory)
	debug.SetGCPercent(gcPercent)
	b.memory = service.NewGroup(context.WithoutCancel(ctx))
	b.memory.Go(b.returnMemory)
	return nil
}

func (b *Broker) stopMemory(context.Context) error {
	b.memory.Stop()
	return nil
}

func (b *Broker) startTelemetry(ctx context.Context) (err error) {
	b.telemetry, err = telemetry.Start(ctx, telemetry.Options{
		ServiceName: "varve", Version: b.seams.Version, NodeID: b.cfg.NodeID, Logger: b.log,
	})
	return err
}

func (b *Broker) startHTTP(context.Context) error {
	b.http = httpapi.New(httpapi.Options{
		Addr: b.cfg.HTTPAddr, Ready: b.ready, Metrics: http.HandlerFunc(b.telemetry.Handler.ServeHTTP), Topics: b.topic, Admin: b.admin(),
		Listen: func(addr string) (net.Listener, error) { return b.seams.Listen("tcp", addr) },
		Logger: b.log, Profiling: b.cfg.Profiling,
	})
	return b.http.Start()
}

func (b *Broker) startListener(context.Context) error {
	addr, err := b.cfg.listener()
	if err != nil {
		return err
	}
	if b.listener, err = b.seams.Listen("tcp", addr); err != nil {
		return fmt.Errorf("listen for Kafka clients: %w", err)
	}
	return nil
}

// stopListener closes a listener that the Kafka server has not closed already.
func (b *Broker) stopListener(context.Context) error {
	if err := b.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
