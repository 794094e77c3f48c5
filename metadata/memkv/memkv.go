// Package memkv is the in-memory twin of etcd behind metadata.KV: the same revisions, compares and watches, no disk. Tests
// and simulations use it; with a fault hook it is the fault twin as well.
package memkv

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// Outcome is what a fault hook makes of an operation.
type Outcome uint8

// The outcomes that a fault hook can choose.
const (
	Proceed    Outcome = iota // the operation runs
	FailBefore                // it fails and has no effect
	FailAfter                 // it takes effect and fails: the caller cannot know
)

// Options configure a store. The zero value is a store without faults.
type Options struct {
	// Fault is asked before each operation, by its name ("get", "list", "txn"); nil never fails. It must not call the
	// store.
	Fault func(op string) Outcome
	// Err is what a failed operation returns; default: a plain error.
	Err error
}

// KV is a metadata.KV in memory. It is safe for concurrent use.
type KV struct {
	opts  Options
	group *service.Group // one goroutine for each watch
	mu    struct {
		sync.Mutex
		revision  int64
		compacted int64 // history up to here is gone
		keys      map[string]metadata.KeyValue
		history   []metadata.Event // by revision
		watchers  map[*watcher]struct{}
	}
}

type watcher struct {
	prefix string
	next   int64 // first revision not delivered yet
	wake   chan struct{}
}

// New returns an empty store at revision 1.
func New(opts Options) *KV {
	if opts.Err == nil {
		opts.Err = fmt.Errorf("memkv: injected fault")
	}
	k := &KV{opts: opts, group: service.NewGroup(context.Background())}
	k.mu.revision = 1
	k.mu.keys = map[string]metadata.KeyValue{}
	k.mu.watchers = map[*watcher]struct{}{}
	return k
}

func (k *KV) fault(ctx context.Context, op string) (Outcome, error) {
	if err := ctx.Err(); err != nil {
		return FailBefore, err
	}
	if k.opts.Fault == nil {
		return Proceed, nil
	}
	o := k.opts.Fault(op)
	if o == FailBefore {
		return o, k.opts.Err
	}
	return o, nil
}

// Get implements metadata.KV.
func (k *KV) Get(ctx context.Context, key string) (metadata.KeyValue, bool, error) {
	o, err := k.fault(ctx, "get")
	if err != nil || o == FailAfter {
		return metadata.KeyValue{}, false, firstErr(err, k.opts.Err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	kv, ok := k.mu.keys[key]
	return kv, ok, nil
}

// List implements metadata.KV.
func (k *KV) List(ctx context.Context, prefix string) ([]metadata.KeyValue, int64, error) {
	o, err := k.fault(ctx, "list")
	if err != nil || o == FailAfter {
		return nil, 0, firstErr(err, k.opts.Err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []metadata.KeyValue
	for key, kv := range k.mu.keys {
		if strings.HasPrefix(key, prefix) {
			out = append(out, kv)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, k.mu.revision, nil
}

// Txn implements metadata.KV.
func (k *KV) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	if len(cmps) > metadata.MaxTxnOps || len(ops) > metadata.MaxTxnOps {
		return metadata.TxnResult{}, fmt.Errorf("memkv: transaction of %d compares and %d operations: the limit is %d", len(cmps), len(ops), metadata.MaxTxnOps)
	}
	seen := map[string]struct{}{}
	for _, op := range ops {
		if _, dup := seen[op.Key]; dup {
			return metadata.TxnResult{}, fmt.Errorf("memkv: duplicate key %q in a transaction", op.Key)
		}
		seen[op.Key] = struct{}{}
	}
	o, err := k.fault(ctx, "txn")
	if err != nil {
		return metadata.TxnResult{}, err
	}
	res := k.commit(cmps, ops)
	if o == FailAfter {
		return metadata.TxnResult{}, k.opts.Err
	}
	return res, nil
}

func (k *KV) commit(cmps []metadata.Cmp, ops []metadata.Op) metadata.TxnResult {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range cmps {
		if !k.holdsLocked(c) {
			return metadata.TxnResult{Revision: k.mu.revision}
		}
	}
	rev := k.mu.revision + 1
	changed := false
	for _, op := range ops {
		old, exists := k.mu.keys[op.Key]
		switch {
		case op.Delete && !exists:
			continue
		case op.Delete:
			delete(k.mu.keys, op.Key)
			k.mu.history = append(k.mu.history, metadata.Event{KV: metadata.KeyValue{Key: op.Key, ModRevision: rev}, Deleted: true})
		default:
			kv := metadata.KeyValue{Key: op.Key, Value: append([]byte(nil), op.Value...), CreateRevision: rev, ModRevision: rev}
			if exists {
				kv.CreateRevision = old.CreateRevision
			}
			k.mu.keys[op.Key] = kv
			k.mu.history = append(k.mu.history, metadata.Event{KV: kv})
		}
		changed = true
	}
	if changed {
		k.mu.revision = rev
		for w := range k.mu.watchers {
			w.signal()
		}
	}
	return metadata.TxnResult{Committed: true, Revision: k.mu.revision}
}

func (k *KV) holdsLocked(c metadata.Cmp) bool {
	kv, ok := k.mu.keys[c.Key]
	switch c.Kind {
	case metadata.CmpExists:
		return ok
	case metadata.CmpCreateRevision:
		return kv.CreateRevision == c.Revision
	default:
		return kv.ModRevision == c.Revision
	}
}

// Watch implements metadata.KV.
func (k *KV) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	w := &watcher{prefix: prefix, next: from, wake: make(chan struct{}, 1)}
	w.signal()
	k.mu.Lock()
	k.mu.watchers[w] = struct{}{}
	k.mu.Unlock()
	out := make(chan metadata.Events)
	if !k.group.Go(func(closed context.Context) { k.serve(ctx, closed, w, out) }) {
		close(out)
	}
	return out
}

// Close ends all watches. The data stays readable.
func (k *KV) Close() { k.group.Stop() }

func (k *KV) serve(ctx, closed context.Context, w *watcher, out chan<- metadata.Events) {
	defer close(out)
	defer func() {
		k.mu.Lock()
		delete(k.mu.watchers, w)
		k.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-closed.Done():
			return
		case <-w.wake:
		}
		batch := k.pending(w)
		if batch.Err == nil && len(batch.Events) == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-closed.Done():
			return
		case out <- batch:
		}
		if batch.Err != nil {
			return
		}
	}
}

func (k *KV) pending(w *watcher) metadata.Events {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.next <= k.mu.compacted {
		return metadata.Events{Err: metadata.ErrCompacted}
	}
	i := sort.Search(len(k.mu.history), func(i int) bool { return k.mu.history[i].KV.ModRevision >= w.next })
	batch := metadata.Events{Revision: k.mu.revision}
	for _, e := range k.mu.history[i:] {
		if strings.HasPrefix(e.KV.Key, w.prefix) {
			batch.Events = append(batch.Events, e)
		}
	}
	w.next = k.mu.revision + 1
	return batch
}

// Compact drops the history up to a revision (inclusive): watches that are behind it end with metadata.ErrCompacted.
func (k *KV) Compact(revision int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	revision = min(revision, k.mu.revision)
	i := sort.Search(len(k.mu.history), func(i int) bool { return k.mu.history[i].KV.ModRevision > revision })
	k.mu.history = append([]metadata.Event(nil), k.mu.history[i:]...)
	k.mu.compacted = max(k.mu.compacted, revision)
	for w := range k.mu.watchers {
		w.signal()
	}
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func firstErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
