package metadata

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
)

// casAttempts bounds how often an optimistic change is tried again after it lost to another writer.
const casAttempts = 16

// Options configure a Store.
type Options struct {
	// KV is where the metadata lives. Required; the Store does not close it.
	KV KV
	// BrokerID is this broker's node id.
	BrokerID base.BrokerID
	// Static are the settings given at the start (--set and what flags stand for), by Kafka's names.
	Static map[string]string
	// Cluster is the id of the cluster that this broker's data is of: Open refuses another one, and to found one. Empty: of none yet.
	Cluster string
	// Admit is asked before a registration of this broker, in a cluster of several, replaces an older one of its id; an error ends
	// RegisterBroker. nil: nobody is asked.
	Admit func(ctx context.Context, old Broker) error
	// Clock defaults to the real one.
	Clock clock.Clock
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Meter defaults to one that records nothing.
	Meter metric.Meter
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider().Meter("")
	}
}

// Store keeps the Image current and performs the controller's writes. Every method that writes returns after the local
// image shows the change. Errors wrap kerr errors (kerr.TopicAlreadyExists, kerr.InvalidPartitions, ...); those with
// Kafka's words are *Error. It is safe for concurrent use.
type Store struct {
	opts     Options
	kv       KV
	local    *localConfig
	group    *service.Group
	loader   *loader
	topics   chan struct{} // one slot: whoever holds it checks names and writes topics, as Kafka's controller thread does
	unswept  chan struct{} // signals sweeper
	pids     *idBlocks
	logIDs   *idBlocks
	recorder recorder
	// epoch is that of this broker's registration, 0 before it.
	epoch atomic.Int64
}

// Open loads the image, finishes what a crash left half done, and keeps the image current until Close. A bad name or value
// in Options.Static is an error that names the nearest setting.
func Open(ctx context.Context, opts Options) (*Store, error) {
	opts.EnsureDefaults()
	local, err := newLocalConfig(opts.BrokerID, opts.Static)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts:    opts,
		kv:      opts.KV,
		local:   local,
		group:   service.NewGroup(context.WithoutCancel(ctx)),
		loader:  newLoader(opts.KV, opts.Clock, opts.Logger, newImage(local)),
		topics:  make(chan struct{}, 1),
		unswept: make(chan struct{}, 1),
	}
	s.pids = newIDBlocks(s.kv, s.group, opts.Logger, nextProducerKey, producerIDBlock, 0)
	s.logIDs = newIDBlocks(s.kv, s.group, opts.Logger, nextLogKey, logIDBlock, 1)
	if s.recorder, err = newRecorder(opts.Meter, s.loader); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		_ = s.Close() // the cause is returned
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) error {
	if err := s.ensureCluster(ctx); err != nil {
		return err
	}
	if err := s.loader.list(ctx); err != nil {
		return err
	}
	s.group.Go(s.loader.run)
	select {
	case <-s.loader.watching:
	case <-ctx.Done():
		return kvError(ctx.Err(), "watch metadata")
	}
	s.group.Go(s.sweeper)
	return s.finishPending(ctx)
}

func wrapKV(err error, what string) error {
	if err == nil {
		return nil
	}
	return kvError(err, "%s", what)
}

// Close stops following changes and waits for the store's goroutines. The last image stays readable.
func (s *Store) Close() error {
	s.group.Stop()
	return s.recorder.close()
}

// Image returns the current image.
func (s *Store) Image() *Image {
	image, _ := s.loader.current()
	return image
}

// Subscribe calls fn after each new image, in order and never twice at a time; the first call, with old == nil, comes before
// Subscribe returns. Images that follow each other closely may be seen as one: compare old and new with DeltaOf. fn must
// not call Subscribe or Close.
func (s *Store) Subscribe(fn func(old, new *Image)) {
	image, newer := s.loader.current()
	fn(nil, image)
	s.group.Go(func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-newer:
			}
			old := image
			image, newer = s.loader.current()
			fn(old, image)
		}
	})
}

// write commits a transaction that changes the image and waits for the image to show it. committed is false where a
// compare did not hold.
func (s *Store) write(ctx context.Context, what string, cmps []Cmp, ops []Op) (committed bool, err error) {
	started := s.opts.Clock.Now()
	res, err := s.kv.Txn(ctx, cmps, ops)
	s.recorder.txn(ctx, what, s.opts.Clock.Now().Sub(started), res, err)
	if err != nil {
		return false, kvError(err, "%s", what)
	}
	if !res.Committed {
		return false, nil
	}
	return true, s.loader.await(ctx, res.Revision)
}

// lockTopics takes the slot that serialises checks of topic names against the image with the writes that follow.
func (s *Store) lockTopics(ctx context.Context) (unlock func(), err error) {
	select {
	case s.topics <- struct{}{}:
		return func() { <-s.topics }, nil
	case <-ctx.Done():
		return nil, kvError(ctx.Err(), "wait for the controller")
	}
}

// errLostRace ends a change that other writers got ahead of at every attempt. Nothing was written; clients may try again.
var errLostRace = fmt.Errorf("changed by another writer at every attempt: %w", kerr.RequestTimedOut)
