package compaction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
)

// Bucket is what compaction may do to the object store.
type Bucket interface {
	objstore.Reader
	objstore.Lister
	objstore.Deleter
}

// Meta is what compaction needs of the metadata store; *metadata.Store satisfies it.
type Meta interface {
	Image() *metadata.Image
	Subscribe(fn func(old, new *metadata.Image))
	Roots(ctx context.Context) (map[base.LogID]metadata.Root, error)
	Intents(ctx context.Context) ([]metadata.Intent, error)
	DeleteIntents(ctx context.Context, ids ...string) error
	DeletedLogs(ctx context.Context) ([]metadata.DeletedLog, error)
	ForgetLog(ctx context.Context, log base.LogID) error
}

// Options wires a Runner.
type Options struct {
	Bucket      Bucket
	Tiering     *tiering.Tiering
	Meta        Meta
	Owner       Owner // nil: no retention (a stand-alone worker)
	BrokerID    base.BrokerID
	BrokerEpoch int64 // registration epoch of this incarnation: intents of earlier ones are dead

	Clock  clock.Clock  // default clock.Real
	Logger *slog.Logger // default: discards
	Meter  metric.Meter // default: noop

	// The intervals follow the broker's dynamic settings where they are nil.
	Grace             func() time.Duration // varve.gc.grace.ms
	ScrubInterval     func() time.Duration // varve.scrub.interval.ms
	RetentionInterval func() time.Duration // log.retention.check.interval.ms

	Tick          time.Duration // how often the runner looks what is due; default 1 s
	TopicsMax     time.Duration // the longest pause between two looks at a deleted topic that has to wait; default 1 min
	FirstSweep    time.Duration // the first sweep comes so long after the start; default 10 s
	UploadGrace   time.Duration // a multipart upload older than this is dead; default 24 h
	MaxPending    int           // objects that wait for their grace period in memory, more are left to the sweep; default 100,000
	DeletesPerRun int           // keys of one delete request; default 500
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
		o.Meter = metricnoop.NewMeterProvider().Meter("compaction")
	}
	setting := func(fn *func() time.Duration, ms func(*metadata.BrokerConfig) int64) {
		if *fn == nil {
			*fn = func() time.Duration { return time.Duration(ms(o.Meta.Image().Broker())) * time.Millisecond }
		}
	}
	setting(&o.Grace, func(c *metadata.BrokerConfig) int64 { return c.GCGraceMs })
	setting(&o.ScrubInterval, func(c *metadata.BrokerConfig) int64 { return c.ScrubIntervalMs })
	setting(&o.RetentionInterval, func(c *metadata.BrokerConfig) int64 { return c.LogRetentionCheckIntervalMs })
	orDefault(&o.Tick, time.Second)
	orDefault(&o.FirstSweep, 10*time.Second)
	orDefault(&o.TopicsMax, time.Minute)
	orDefault(&o.UploadGrace, 24*time.Hour)
	orDefault(&o.MaxPending, 100_000)
	orDefault(&o.DeletesPerRun, 500)
}

func orDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Validate reports what is missing.
func (o *Options) Validate() error {
	if o.Bucket == nil || o.Meta == nil || o.Tiering == nil {
		return errors.New("compaction: bucket, metadata store and tiering are required")
	}
	return nil
}

// Runner does compaction's jobs, one at a time, from Start to Stop.
type Runner struct {
	o       Options
	metrics *metrics
	group   *service.Group
	jobs    chan struct{} // one slot: whoever holds it runs jobs
	wake    chan struct{} // a topic may have been deleted
	pending pending
	// cleared says that the intents of earlier incarnations are gone. Guarded by the jobs slot.
	cleared bool
	state   struct {
		sync.Mutex
		topics bool          // DeletedLogs is worth a look
		again  time.Time     // and is again then; zero: nothing waits
		pause  time.Duration // between such looks: each lists the bucket
	}
}

// New checks the options. Nothing runs before Start.
func New(o Options) (*Runner, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.EnsureDefaults()
	r := &Runner{o: o, jobs: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	r.state.topics = true
	var err error
	if r.metrics, err = newMetrics(r); err != nil {
		return nil, fmt.Errorf("compaction metrics: %w", err)
	}
	return r, nil
}

// Start runs the jobs in the background.
func (r *Runner) Start(ctx context.Context) {
	r.group = service.NewGroup(context.WithoutCancel(ctx))
	r.o.Meta.Subscribe(func(old, now *metadata.Image) {
		if old == nil || len(now.Topics()) < len(old.Topics()) || topicGone(old, now) {
			r.state.Lock()
			r.state.topics, r.state.pause = true, 0
			r.state.Unlock()
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
	})
	r.group.Go(r.run)
}

// topicGone reports whether a topic of old is not in now.
func topicGone(old, now *metadata.Image) bool {
	for _, t := range old.Topics() {
		if _, ok := now.TopicByID(t.ID); !ok {
			return true
		}
	}
	return false
}

// Stop ends the running job and waits for it. Every job can be repeated.
func (r *Runner) Stop() {
	if r.group != nil {
		r.group.Stop()
	}
	r.metrics.close()
}

// run looks at every tick what is due.
func (r *Runner) run(ctx context.Context) {
	now := r.o.Clock.Now()
	nextSweep, nextRetain := now.Add(r.o.FirstSweep), now.Add(min(r.o.RetentionInterval(), r.o.FirstSweep))
	for ctx.Err() == nil {
		timer := r.o.Clock.NewTimer(r.o.Tick)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.wake:
		}
		timer.Stop()
		now = r.o.Clock.Now()
		job := jobs{topics: r.topicsDue(), retain: !now.Before(nextRetain), sweep: !now.Before(nextSweep)}
		if job.retain {
			nextRetain = now.Add(r.o.RetentionInterval())
		}
		if job.sweep {
			nextSweep = now.Add(r.o.ScrubInterval())
		}
		if err := r.do(ctx, job); err != nil && ctx.Err() == nil {
			r.o.Logger.Warn("compaction job failed", slog.Any("error", err))
		}
	}
}

func (r *Runner) topicsDue() bool {
	r.state.Lock()
	defer r.state.Unlock()
	due := r.state.topics || !r.state.again.IsZero() && !r.o.Clock.Now().Before(r.state.again)
	r.state.topics = false
	return due
}

// topicsAgain has another look at the deleted topics later, ever more so: others have to move away first, a leader has to be
// elected that does, or a round is under way.
func (r *Runner) topicsAgain(waiting bool) {
	r.state.Lock()
	defer r.state.Unlock()
	if !waiting {
		r.state.again, r.state.pause = time.Time{}, 0
		return
	}
	r.state.pause = min(max(2*r.state.pause, r.o.Tick), r.o.TopicsMax)
	r.state.again = r.o.Clock.Now().Add(r.state.pause)
}

// jobs says what to do besides collecting garbage, which is always done.
type jobs struct{ topics, retain, sweep bool }

// RunOnce does every job once, now. It is what tests and commands use.
func (r *Runner) RunOnce(ctx context.Context) error {
	return r.do(ctx, jobs{topics: true, retain: true, sweep: true})
}

func (r *Runner) do(ctx context.Context, j jobs) error {
	select {
	case r.jobs <- struct{}{}:
		defer func() { <-r.jobs }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var errs []error
	step := func(name string, due bool, fn func(context.Context) error) {
		if !due || ctx.Err() != nil {
			return
		}
		err := fn(ctx)
		r.metrics.job(ctx, name, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	step("clear intents", !r.cleared, r.clearOwnIntents)
	step("retention", j.retain, r.retain)
	step("delete topics", j.topics || j.sweep, r.deleteTopics)
	step("collect garbage", true, r.collect)
	step("sweep", j.sweep, r.sweep)
	return errors.Join(errs...)
}

// clearOwnIntents removes the intents of dead incarnations of this broker, so that what they left becomes orphans (I7).
func (r *Runner) clearOwnIntents(ctx context.Context) error {
	err := r.clearIntents(ctx, func(in *metadata.Intent) bool { return in.Broker == r.o.BrokerID && in.Epoch < r.o.BrokerEpoch })
	r.cleared = err == nil
	return err
}

// clearIntents removes the intents that are dead. Whatever their writers still do, without them they commit nothing.
func (r *Runner) clearIntents(ctx context.Context, dead func(*metadata.Intent) bool) error {
	intents, err := r.o.Meta.Intents(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for i := range intents {
		if dead(&intents[i]) {
			ids = append(ids, intents[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return r.o.Meta.DeleteIntents(ctx, ids...)
}
