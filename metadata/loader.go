package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/clock"
)

// watchRetry is how long the loader waits before it asks again after the KV failed it.
const watchRetry = 200 * time.Millisecond

// loader keeps the current image: it is the only writer of it.
type loader struct {
	kv     KV
	clock  clock.Clock
	logger *slog.Logger
	// watching is closed once the first watch stands. A write that comes later reaches it at once; etcd brings a watch that
	// is behind up to date only ten times a second.
	watching chan struct{}
	mu       struct {
		sync.Mutex
		image     *Image
		published chan struct{} // closed and replaced with each image
		failure   error         // why no further image will come
	}
}

func newLoader(kv KV, c clock.Clock, logger *slog.Logger, empty *Image) *loader {
	l := &loader{kv: kv, clock: c, logger: logger, watching: make(chan struct{})}
	l.mu.image = empty
	l.mu.published = make(chan struct{})
	return l
}

// current returns the image and a channel that is closed when there is a newer one.
func (l *loader) current() (*Image, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.image, l.mu.published
}

func (l *loader) publish(next *Image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.image = next
	close(l.mu.published)
	l.mu.published = make(chan struct{})
}

// await returns once the image shows a revision of a key below imagePrefix.
func (l *loader) await(ctx context.Context, revision int64) error {
	for {
		image, newer := l.current()
		if image.revision >= revision {
			return nil
		}
		select {
		case <-newer:
		case <-ctx.Done():
			return kvError(ctx.Err(), "wait for metadata revision %d", revision)
		}
	}
}

// list replaces the image by what the KV holds now. The first one has no former values to stand for damaged keys, and what an image
// lacks is taken for deleted, with its records: there is none where a key is damaged (base.IsCorruption).
func (l *loader) list(ctx context.Context) error {
	kvs, revision, err := l.kv.List(ctx, imagePrefix)
	if err != nil {
		return kvError(err, "list metadata")
	}
	old, _ := l.current()
	listed := make(map[string]struct{}, len(kvs))
	events := make([]Event, 0, len(kvs))
	for _, kv := range kvs {
		listed[kv.Key] = struct{}{}
		events = append(events, Event{KV: kv})
	}
	for _, key := range old.keys() {
		if _, ok := listed[key]; !ok {
			events = append(events, Event{KV: KeyValue{Key: key}, Deleted: true})
		}
	}
	if bad := l.apply(old, events, revision); old.revision == 0 && len(bad) > 0 {
		return fmt.Errorf("restore the key, or delete it and with it what it stands for: %w", errors.Join(bad...))
	}
	return nil
}

func (l *loader) apply(old *Image, events []Event, revision int64) (bad []error) {
	next, bad := old.apply(events, revision)
	for _, err := range bad {
		l.logger.Error("metadata key is damaged, its former value stands", slog.Any("error", err))
	}
	l.publish(next)
	return bad
}

// run watches until ctx ends. The image is listed again where history was compacted away under it.
func (l *loader) run(ctx context.Context) {
	standing := sync.OnceFunc(func() { close(l.watching) })
	for ctx.Err() == nil {
		image, _ := l.current()
		err := l.watch(ctx, image.revision+1, standing)
		if ctx.Err() != nil {
			return
		}
		l.logger.Warn("metadata watch ended", slog.Any("error", err))
		if errors.Is(err, ErrCompacted) {
			if err := l.list(ctx); err != nil {
				l.logger.Warn("metadata list failed", slog.Any("error", err))
			}
		}
		timer := l.clock.NewTimer(watchRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// watch applies events until the watch ends. It calls standing when the watch stands.
func (l *loader) watch(ctx context.Context, from int64, standing func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := l.kv.Watch(ctx, imagePrefix, from)
	standing()
	for {
		batch, ok := <-events
		if !ok {
			return ctx.Err()
		}
		if batch.Err != nil {
			return batch.Err
		}
		image, _ := l.current()
		l.apply(image, batch.Events, batch.Revision)
	}
}

// keys lists every key that the image was built from.
func (i *Image) keys() []string {
	var keys []string
	for name := range i.records.all {
		keys = append(keys, topicKey(name))
	}
	for id, slots := range i.partitions.all {
		for index := range slots {
			if slots[index].Log != 0 {
				keys = append(keys, partitionKey(id, int32(index)))
			}
		}
	}
	for name := range i.configs.all {
		keys = append(keys, configPrefix+name)
	}
	for id := range i.brokers {
		keys = append(keys, brokerKey(id))
	}
	if i.controller >= 0 {
		keys = append(keys, controllerKey)
	}
	return keys
}
