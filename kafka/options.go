package kafka

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/varvelog/varve/coordinator/group"
	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/loglimit"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// Options are what a Server needs. The five components are required; every limit has a default (EnsureDefaults).
type Options struct {
	BrokerID base.BrokerID
	Meta     *metadata.Store
	Ingest   *ingest.Ingest
	Fetch    *fetch.Service
	Groups   *group.Coordinator

	// Advertised is what clients are told for this broker until the image lists it. Nil: nothing is told.
	Advertised func() (host string, port int32)
	// Controller takes brokers' heartbeats. Nil: this broker is never the controller.
	Controller Controller
	// Voters tells which brokers have a member of etcd, and how those are. Nil: the controller alone.
	Voters func(ctx context.Context) ([]Voter, error)
	// LogDir is the absolute path that DescribeLogDirs shows.
	LogDir string

	Clock  clock.Clock   // default clock.Real
	Rand   func() uint32 // of fetch session ids, which must not repeat after a restart; default crypto/rand
	Logger *slog.Logger  // default slog.Default
	Meter  metric.Meter  // default: no metrics
	Tracer trace.Tracer  // default: no spans
	Quota  QuotaFunc     // default: nobody is throttled
	Limits Limits        // zero fields take their defaults
	_      struct{}      // options are named
}

// Limits bound what clients can make the server hold (I10). Sizes are bytes.
type Limits struct {
	MaxRequestBytes      int32         // socket.request.max.bytes; default 104857600
	MaxControlBytes      int32         // largest request that is not a Produce; default 16777216
	RequestMemoryBytes   int64         // bodies of all connections that are being read or answered; default 134217728
	FetchMemoryBytes     int64         // fetched bytes that wait for slow readers, all connections; default 268435456
	FetchMaxBytes        int32         // fetch.max.bytes; default 57671680
	MaxConnections       int           // default: the dynamic max.connections where it is set, else 20000
	MaxConnectionsPerIP  int           // default: the dynamic max.connections.per.ip and its overrides
	MaxInFlight          int           // requests of one connection that are read but not answered; default 64
	MaxInFlightBytes     int64         // their bytes, except that one request always passes; default 33554432
	IdleTimeout          time.Duration // connections.max.idle.ms; default 10 minutes
	FrameTimeout         time.Duration // from the first byte of a request to its last, plus 1 s for each 64 KiB; default 30 s
	WriteTimeout         time.Duration // for each MiB of a response; default 30 s
	FetchSessionSlots    int           // max.incremental.fetch.session.cache.slots; default 1000
	FetchSessionMaxParts int           // partitions in all sessions; default 250000
	AutoCreateInFlight   int           // topics being created for Metadata and FindCoordinator; default 64
}

// defaultMaxConnections bounds the connections where max.connections is not set (Kafka: no bound).
const defaultMaxConnections = 20000

// fromSettings replaces zero values by the broker's settings (socket.request.max.bytes, queued.max.request.bytes, ...).
func (l *Limits) fromSettings(b *metadata.BrokerConfig) {
	setDefault(&l.MaxRequestBytes, b.SocketRequestMaxBytes)
	setDefault(&l.RequestMemoryBytes, max(b.QueuedMaxRequestBytes, 0))
	setDefault(&l.FetchMaxBytes, b.FetchMaxBytes)
	setDefault(&l.IdleTimeout, time.Duration(b.ConnectionsMaxIdleMs)*time.Millisecond)
	setDefault(&l.FetchSessionSlots, int(b.FetchSessionCacheSlots))
}

// EnsureDefaults replaces zero values by the defaults.
func (l *Limits) EnsureDefaults() {
	setDefault(&l.MaxRequestBytes, 100<<20)
	setDefault(&l.MaxControlBytes, 16<<20)
	setDefault(&l.RequestMemoryBytes, 128<<20)
	setDefault(&l.FetchMemoryBytes, 256<<20)
	setDefault(&l.FetchMaxBytes, 55<<20)
	setDefault(&l.MaxInFlight, 64)
	setDefault(&l.MaxInFlightBytes, 32<<20)
	setDefault(&l.IdleTimeout, 10*time.Minute)
	setDefault(&l.FrameTimeout, 30*time.Second)
	setDefault(&l.WriteTimeout, 30*time.Second)
	setDefault(&l.FetchSessionSlots, 1000)
	setDefault(&l.FetchSessionMaxParts, 250000)
	setDefault(&l.AutoCreateInFlight, 64)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	o.Limits.EnsureDefaults()
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = randomUint32
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Meter == nil {
		o.Meter = metricnoop.NewMeterProvider().Meter("kafka")
	}
	if o.Tracer == nil {
		o.Tracer = tracenoop.NewTracerProvider().Tracer("kafka")
	}
	if o.Advertised == nil {
		o.Advertised = func() (string, int32) { return "", -1 }
	}
}

func randomUint32() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint32(b[:])
}

// Validate reports what a Server cannot work with.
func (o *Options) Validate() error {
	if o.Meta == nil || o.Ingest == nil || o.Fetch == nil || o.Groups == nil {
		return errors.New("kafka: Meta, Ingest, Fetch and Groups are required")
	}
	if n := o.Limits.MaxRequestBytes; n != 0 && n < 1024 {
		return errors.New("kafka: socket.request.max.bytes below 1024")
	}
	return nil
}

// Server speaks the Kafka protocol on its listeners. All methods may be called from any goroutine.
type Server struct {
	opts  Options
	deps  backends
	table *routes
	met   *metrics
	log   *slog.Logger
	// tracing: a Tracer was given.
	tracing bool

	requests requestMemory
	parked   *admission // memory of requests whose handler waits (long polls, joins)
	fetched  *fetchMemory
	sessions *sessionCache
	creating *creations
	buffers  bufferPools
	loud     loglimit.Limit

	conns  connSet
	goroot *service.Group
}

// New returns a server that serves nothing yet. It panics where Validate fails: the wiring is wrong.
func New(o Options) *Server {
	if err := o.Validate(); err != nil {
		panic(err)
	}
	o.Limits.fromSettings(o.Meta.Image().Broker())
	return newServer(o, backends{
		meta:   storeCluster{o.Meta},
		ingest: ingestAppender{o.Ingest},
		fetch:  o.Fetch,
		groups: o.Groups,
	})
}

func newServer(o Options, deps backends) *Server {
	tracing := o.Tracer != nil
	o.EnsureDefaults()
	s := &Server{loud: loglimit.Limit{PerSecond: linesPerSecond}, tracing: tracing, opts: o, deps: deps, log: o.Logger, goroot: service.NewGroup(context.Background())}
	s.table = newRoutes()
	s.requests = newRequestMemory(o.Clock, o.Limits.RequestMemoryBytes)
	s.parked = newAdmission(o.Clock, o.Limits.RequestMemoryBytes)
	s.fetched = &fetchMemory{limit: o.Limits.FetchMemoryBytes}
	s.sessions = newSessionCache(o.Clock, o.Rand, o.Limits.FetchSessionSlots, o.Limits.FetchSessionMaxParts)
	s.creating = newCreations(o.Limits.AutoCreateInFlight)
	s.conns.init()
	s.met = newMetrics(o.Meter, s)
	return s
}
