package run

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
)

// Options configure a Controller.
type Options struct {
	// Store is this broker's. Required; the controller does not close it, and is closed before it.
	Store *metadata.Store
	// Leadership says whether this broker is to be the controller, the latest value last. Required.
	Leadership <-chan bool
	// Probe connects to a broker and returns soon; nil: only the session timeout finds dead brokers. At most one runs for
	// a broker at a time.
	Probe func(ctx context.Context, b metadata.Broker) controller.ProbeResult
	// SessionTimeout is broker.session.timeout.ms; default 9 s, as Kafka's.
	SessionTimeout time.Duration
	// BalanceEvery is how often leaders and replicas are balanced; default 2 s, negative: never.
	BalanceEvery time.Duration
	// LeaderMoves bounds how many preferred leaders are restored in a round; default 500.
	LeaderMoves int
	// HotBytes asks a broker for the hot bytes of its replicas, and returns within seconds; nil: replicas are balanced by their
	// number alone. The settings of it are varve.balance.hot.*.
	HotBytes func(ctx context.Context, b metadata.Broker) (HotSizes, error)
	// ReplicaMoves bounds how many reassignments that the controller starts are under way; default 500.
	ReplicaMoves int
	// Meter gets the instruments; nil: none.
	Meter metric.Meter
	// Clock defaults to the real one.
	Clock clock.Clock
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	if o.SessionTimeout == 0 {
		o.SessionTimeout = 9 * time.Second
	}
	if o.BalanceEvery == 0 {
		o.BalanceEvery = 2 * time.Second
	}
	if o.LeaderMoves == 0 {
		o.LeaderMoves = 500
	}
	if o.ReplicaMoves == 0 {
		o.ReplicaMoves = 500
	}
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Controller carries out the controller's decisions while this broker is the controller. It is safe for concurrent use.
type Controller struct {
	opts  Options
	group *service.Group
	wake  chan struct{}

	metrics metrics

	// Of the loop alone.
	epoch    int64              // of this reign; 0: not the controller
	settled  *metadata.Image    // what the last complete pass over the partitions saw, nil: none
	statuses controller.Cluster // and with which brokers
	balance  time.Time          // when to balance next
	balanced *metadata.Image    // that of the last look which found nothing to balance
	hot      controller.HotBalance
	hotDue   time.Time // when to ask for hot bytes next

	mu struct {
		sync.Mutex
		tracker  *controller.Tracker // nil: not the controller
		probing  map[base.BrokerID]struct{}
		sweeping bool
		asking   bool  // for hot bytes
		look     *look // the answers, nil: none that have not been used
	}
}

// New starts a controller, which runs until Close.
func New(opts Options) (*Controller, error) {
	opts.EnsureDefaults()
	instruments, err := newMetrics(opts.Meter)
	if err != nil {
		return nil, fmt.Errorf("controller instruments: %w", err)
	}
	c := &Controller{opts: opts, metrics: instruments, group: service.NewGroup(context.Background()), wake: make(chan struct{}, 1)}
	c.mu.probing = map[base.BrokerID]struct{}{}
	opts.Store.Subscribe(func(_, _ *metadata.Image) { c.signal() })
	c.group.Go(c.run)
	return c, nil
}

// Close stops it and waits. The controller key keeps its name until another broker claims it.
func (c *Controller) Close() { c.group.Stop() }

func (c *Controller) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Answer is what a broker learns from its heartbeat.
type Answer struct {
	Fenced  bool // as the controller's image has it
	MayStop bool // it said that it is leaving, and leads nothing that another could lead
}

// Heartbeat says that a broker is alive, and whether it wants to stop. kerr.NotController where this broker does not act as
// the controller; kerr.BrokerIDNotRegistered and kerr.StaleBrokerEpoch where another registration stands, or where the
// registration is too new for this image: try again.
func (c *Controller) Heartbeat(h controller.Heartbeat) (Answer, error) {
	image := c.opts.Store.Image()
	cluster, err := c.heard(image, h)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Fenced: !cluster[h.ID].Alive(), MayStop: h.Leaving}
	if b, _ := image.BrokerByID(h.ID); answer.Fenced || h.Leaving || h.Full != b.Full {
		c.signal()
	}
	if !h.Leaving {
		return answer, nil
	}
	for p := range image.AllPartitions() {
		if p.Leader != h.ID {
			continue
		}
		if next, _ := controller.Next(p.State(), cluster, image.Rules(p)); next.Leader != h.ID {
			answer.MayStop = false
			break
		}
	}
	return answer, nil
}

func (c *Controller) heard(image *metadata.Image, h controller.Heartbeat) (controller.Cluster, error) {
	now := c.opts.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.tracker == nil {
		return nil, kerr.NotController
	}
	c.mu.tracker.Sync(registrations(image), now)
	if err := c.mu.tracker.Heartbeat(h, now); err != nil {
		return nil, err
	}
	return image.Cluster(c.mu.tracker.Leaving), nil
}

// Disconnected says that the connection over which a broker sent heartbeats broke: it is probed at once.
func (c *Controller) Disconnected(id base.BrokerID, epoch int64) {
	c.mu.Lock()
	if c.mu.tracker != nil {
		c.mu.tracker.Disconnected(id, epoch)
	}
	c.mu.Unlock()
	c.signal()
}

func registrations(image *metadata.Image) []controller.Registration {
	brokers := image.AllBrokers()
	out := make([]controller.Registration, len(brokers))
	for n, b := range brokers {
		out[n] = controller.Registration{ID: b.ID, Epoch: b.Epoch, Fenced: b.Fenced, Full: b.Full}
	}
	return out
}
