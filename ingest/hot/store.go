package hot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/service"
)

// Errors of a store that takes no more calls. They wrap kerr.KafkaStorageError, the code that a client gets.
var (
	// ErrClosed answers every call after Close.
	ErrClosed = fmt.Errorf("hot store is closed: %w", kerr.KafkaStorageError)
	// ErrFailed answers every write after the failure that Options.OnFatal was called with, which it wraps too.
	ErrFailed = fmt.Errorf("hot store failed: %w", kerr.KafkaStorageError)
	// ErrDiskFull is what Close returns where the disk is full and Pebble cannot finish.
	ErrDiskFull = fmt.Errorf("hot store disk is full: %w", kerr.KafkaStorageError)
)

// Store is the hot store of one broker (one data disk). Open starts it and Close ends it; every method may be called from
// any number of goroutines. One goroutine per log orders that log's writes: the store keeps the order of Apply calls, and
// checks nothing of what a log may contain.
type Store struct {
	opts     Options
	db       *pebble.DB
	id       string
	cache    *pebble.Cache // the block cache, which db holds alive
	disk     *disk
	space    *space
	group    *service.Group // the poll of the free space
	waits    *service.Group // for syncs
	lifetime lifetime
	writes   sync.Pool // of *Write
	stats    stats
	metrics  *instruments

	failOnce sync.Once
	failure  atomic.Pointer[error] // set once; nil while the store works
	failed   chan struct{}         // closed when it is set
}

// Open opens or creates the store in opts.Dir and replays its write-ahead log. It fails where another process has the
// directory open. A damaged log file is an error marked as corruption: the disk's logs must be fetched from replicas (I14).
func Open(opts Options) (*Store, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	background := context.Background()
	s := &Store{opts: opts, group: service.NewGroup(background), waits: service.NewGroup(background), failed: make(chan struct{})}
	s.lifetime.init()
	s.space = newSpace(&s.opts)
	if err := s.startMetrics(); err != nil {
		return nil, fmt.Errorf("hot store metrics: %w", err)
	}
	s.disk = newDisk(s)
	s.space.look()
	db, err := s.openPebble()
	if err != nil {
		s.metrics.stop()
		return nil, fmt.Errorf("open hot store %s: %w", opts.Dir, errors.Join(markCorruption(err), s.disk.close()))
	}
	s.db = db
	if s.id, err = s.identify(); err != nil {
		s.metrics.stop()
		return nil, fmt.Errorf("open hot store %s: %w", opts.Dir, errors.Join(err, db.Close(), s.disk.close()))
	}
	s.metrics.open.Store(true)
	s.group.Go(s.space.poll)
	return s, nil
}

// identify reads the store's id, or gives it one that is durable when it returns.
func (s *Store) identify() (string, error) {
	key := []byte{spaceID}
	v, closer, err := s.db.Get(key)
	if err == nil {
		id := string(v)
		return id, closer.Close()
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return "", markCorruption(err)
	}
	id := uuid.NewString()
	return id, s.db.Set(key, []byte(id), pebble.Sync)
}

// DiskID is a UUID that the store was given when it was created: with another one, what a broker had is lost (I14).
func (s *Store) DiskID() string { return s.id }

// Close waits for the calls that are in progress, flushes the memtable, so that the next Open has nothing to replay, and
// closes Pebble. What Commit.Wait confirmed is safe whatever Close returns. Where it needs space that does not come within four
// DiskFullRetryIntervals it returns ErrDiskFull, and after a failure ErrFailed, and leaves Pebble to the end of the process.
func (s *Store) Close() error {
	if !s.lifetime.close() {
		return ErrClosed
	}
	s.metrics.stop()
	s.group.Stop()
	if err := s.Failed(); err != nil {
		return err
	}
	closing := service.NewGroup(context.Background())
	done := make(chan error, 1)
	closing.Go(func(context.Context) { done <- s.closePebble() })
	for {
		var giveUp <-chan time.Time
		if s.space.blocked.Load() > 0 {
			giveUp = s.opts.Clock.NewTimer(4 * s.opts.DiskFullRetryInterval).C
		}
		select {
		case err := <-done:
			closing.Stop()
			return err
		case <-s.failed:
			return s.Failed()
		case <-s.space.changed: // an operation began to wait for space, or got it
		case <-giveUp:
			return ErrDiskFull
		}
	}
}

func (s *Store) closePebble() error {
	s.lifetime.wait()
	s.waits.Stop() // every applied write is synced
	err := s.db.Flush()
	if err != nil {
		err = fmt.Errorf("flush: %w", err)
	}
	if cerr := s.db.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close: %w", cerr))
	}
	if err = errors.Join(err, s.disk.close()); err != nil {
		return fmt.Errorf("close hot store %s: %w", s.opts.Dir, err)
	}
	return nil
}

// Full reports that produce must be refused: free space is below the reserve, or a disk operation waits for space. Writes
// that are applied nevertheless (checkpoints, trims) wait, and go on by themselves. It costs one atomic load.
func (s *Store) Full() bool { return s.space.full.Load() }

// Failed returns nil, or an ErrFailed with the first failure.
func (s *Store) Failed() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// fail records the first failure, calls OnFatal and returns the store's failure. It may be called with Pebble's locks held.
func (s *Store) fail(cause error) error {
	s.failOnce.Do(func() {
		err := fmt.Errorf("%w: %w", ErrFailed, cause)
		s.failure.Store(&err)
		close(s.failed)
		s.opts.Logger.LogAttrs(context.Background(), slog.LevelError, "hot store failed", slog.String("dir", s.opts.Dir), slog.Any("error", cause))
		s.opts.OnFatal(err)
	})
	return s.Failed()
}

// use admits a call that may still run while Close waits. Every nil must be answered with s.lifetime.exit.
func (s *Store) use() error {
	if !s.lifetime.enter() {
		return ErrClosed
	}
	return nil
}

// lifetime counts the calls in progress, so that Close starts when the last one is out. Twice the count, plus one when closed.
type lifetime struct {
	state atomic.Int64
	once  sync.Once
	idle  chan struct{}
}

func (l *lifetime) init() { l.idle = make(chan struct{}) }

func (l *lifetime) enter() bool {
	if l.state.Add(2)&1 == 0 {
		return true
	}
	l.exit()
	return false
}

func (l *lifetime) exit() {
	if l.state.Add(-2) == 1 {
		l.once.Do(func() { close(l.idle) })
	}
}

// close refuses the calls to come; it reports whether this was the first close.
func (l *lifetime) close() bool {
	old := l.state.Or(1)
	if old == 0 {
		l.once.Do(func() { close(l.idle) })
	}
	return old&1 == 0
}

// wait returns, after close, when no call is in progress.
func (l *lifetime) wait() { <-l.idle }
