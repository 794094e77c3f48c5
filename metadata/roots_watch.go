package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
)

// RootChange is one manifest root that was written, or, where Gone is set, deleted: then only Log and Rev tell something, Rev
// being a revision at which it did not exist any more.
type RootChange struct {
	Root
	Gone bool
}

// RootUpdate is what changed among the roots, by revision. Whoever has applied it and all updates before it has seen every
// change up to Revision: the roots as they were at that revision, and of none a later one.
type RootUpdate struct {
	Changes  []RootChange
	Revision int64
}

// RootWatch follows the manifest roots of all partitions, which are no part of the Image: a root changes with every commit of
// tiering, and few readers want it. The first update is all that there is; then come the changes. History that is compacted
// away under it, and a watch that is lost, cost it a list or another watch, and the caller nothing: no change is left out
// but those that a later one of the same root hides, none comes twice. One caller at a time.
type RootWatch struct {
	kv     KV
	clock  clock.Clock
	logger *slog.Logger

	listed   bool
	again    bool // the history from revision on is gone
	revision int64
	known    map[base.LogID]int64 // mod revision of each root that was delivered, to tell what a list has new
	events   <-chan Events        // nil: there is no watch
	cancel   context.CancelFunc
}

// WatchRoots begins to follow the roots. It asks for nothing before the first Next, and is ended with Close.
func (s *Store) WatchRoots() *RootWatch {
	return &RootWatch{kv: s.kv, clock: s.opts.Clock, logger: s.opts.Logger, known: map[base.LogID]int64{}}
}

// Close ends the watch. It may be called more than once, after the last Next.
func (w *RootWatch) Close() {
	if w.cancel != nil {
		w.cancel()
	}
	w.events, w.cancel = nil, nil
}

// Next waits for the next update; one may have no changes and only a later revision. The first lists the roots, and is the only
// one that fails for another reason than the end of ctx: it may be called again after any error.
func (w *RootWatch) Next(ctx context.Context) (RootUpdate, error) {
	if !w.listed {
		u, err := w.list(ctx)
		w.listed = err == nil
		return u, err
	}
	for {
		u, err := w.step(ctx)
		if err == nil {
			return u, nil
		}
		if ctx.Err() != nil {
			return RootUpdate{}, kvError(ctx.Err(), "watch manifest roots")
		}
		w.logger.Warn("watch of the manifest roots ended", slog.Any("error", err))
		w.again = w.again || errors.Is(err, ErrCompacted)
		timer := w.clock.NewTimer(watchRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// step waits for one answer of the KV. After an error there is no watch.
func (w *RootWatch) step(ctx context.Context) (RootUpdate, error) {
	if w.again {
		u, err := w.list(ctx)
		w.again = err != nil
		return u, err
	}
	if w.events == nil {
		var watching context.Context // outlives ctx: another Next goes on with the same watch
		watching, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
		w.events = w.kv.Watch(watching, rootPrefix, w.revision+1)
	}
	select {
	case <-ctx.Done():
		return RootUpdate{}, ctx.Err()
	case batch, ok := <-w.events:
		switch {
		case !ok:
			w.Close()
			return RootUpdate{}, errors.New("the watch was closed")
		case batch.Err != nil:
			w.Close()
			return RootUpdate{}, batch.Err
		}
		return w.changed(batch.Events, batch.Revision), nil
	}
}

// list delivers what differs from what was delivered before.
func (w *RootWatch) list(ctx context.Context) (RootUpdate, error) {
	kvs, revision, err := w.kv.List(ctx, rootPrefix)
	if err != nil {
		return RootUpdate{}, kvError(err, "list manifest roots")
	}
	there := make(map[string]struct{}, len(kvs))
	var events []Event
	for _, kv := range kvs {
		there[kv.Key] = struct{}{}
		if log, err := base.ParseLogID(kv.Key[len(rootPrefix):]); err != nil || w.known[log] != kv.ModRevision {
			events = append(events, Event{KV: kv})
		}
	}
	for log := range w.known {
		if _, ok := there[rootKey(log)]; !ok {
			events = append(events, Event{KV: KeyValue{Key: rootKey(log), ModRevision: revision}, Deleted: true})
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.KV.ModRevision, b.KV.ModRevision) })
	return w.changed(events, revision), nil
}

// changed makes an update of events. A damaged root is left out: its former value stands.
func (w *RootWatch) changed(events []Event, revision int64) RootUpdate {
	w.revision = max(w.revision, revision)
	u := RootUpdate{Revision: w.revision}
	for _, e := range events {
		log, err := base.ParseLogID(e.KV.Key[len(rootPrefix):])
		if err != nil {
			w.logger.Error("key of a manifest root is damaged", slog.Any("error", fmt.Errorf("%s: %w", e.KV.Key, err)))
			continue
		}
		if e.Deleted {
			delete(w.known, log)
			u.Changes = append(u.Changes, RootChange{Root: Root{Log: log, Rev: e.KV.ModRevision}, Gone: true})
			continue
		}
		root, err := decodeRoot(e.KV)
		if err == nil && root.Log != log {
			err = base.MarkCorruption(fmt.Errorf("%s holds the root of log %s", e.KV.Key, root.Log))
		}
		w.known[log] = e.KV.ModRevision
		if err != nil {
			w.logger.Error("manifest root is damaged, its former value stands", slog.Any("error", err))
			continue
		}
		u.Changes = append(u.Changes, RootChange{Root: root})
	}
	return u
}
