package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"google.golang.org/grpc/codes"
	grpc "google.golang.org/grpc/status"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// pageKeys is how many keys one read of List takes at most.
const pageKeys = 1000

// listAttempts bounds how often List starts again because its revision was compacted away between two pages.
const listAttempts = 5

// watchSilence is how long a watch over another node's member may hear nothing before it counts as lost; members speak up
// every progressEvery.
const (
	progressEvery = time.Second
	watchSilence  = 3 * progressEvery
)

var errSilent = errors.New("the member is silent")

// KV is metadata.KV over etcd clients. It is safe for concurrent use.
//
// A voter uses its own member while that has a leader, and else the others, over TCP; a non-voter has only those. A read is
// tried again with another member. A write is so only where it is certain that it was not applied.
type KV struct {
	local   clientv3.KV      // in process; nil on a non-voter
	watcher clientv3.Watcher // TCP to the own member
	server  *etcdserver.EtcdServer
	others  *clientv3.Client // nil for a single voter
	attempt time.Duration    // bounds one try where there are others
	clock   clock.Clock
	group   *service.Group // one goroutine for each watch
	reign   atomic.Pointer[reign]
}

// reign is the time of one leader, as the own member sees it. Its context ends leaderGrace after it: what was proposed in it
// and has no answer then was lost with the leader, and etcd would let the caller wait for seconds.
type reign struct {
	ctx context.Context
	end context.CancelFunc
}

// leaderGrace is how long a new leader may take to commit and apply what its predecessor left behind: a round trip and a sync.
const leaderGrace = 150 * time.Millisecond

// errNoAnswer says that a request was given up: a write may or may not have happened. It counts as a deadline.
var errNoAnswer = fmt.Errorf("no answer, or a new leader: %w", context.DeadlineExceeded)

// newReign is called when there is a new leader.
func (k *KV) newReign() {
	ctx, end := context.WithCancel(context.Background())
	old := k.reign.Swap(&reign{ctx, end})
	if old == nil {
		return
	}
	k.group.Go(func(ctx context.Context) {
		defer old.end()
		timer := k.clock.NewTimer(leaderGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	})
}

// tryOnce sends a request to one member, for the time of an attempt at most and no longer than the leader's reign.
func (k *KV) tryOnce(ctx context.Context, kv clientv3.KV, do func(context.Context, clientv3.KV) error) error {
	attempt, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), k.attempt)
	defer cancel()
	if r := k.reign.Load(); r != nil && kv == k.local {
		defer context.AfterFunc(r.ctx, cancel)()
	}
	err := do(attempt, kv)
	if err != nil && attempt.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w (%s)", errNoAnswer, err.Error()) // not wrapped: a cancelled attempt is no cancelled request
	}
	return err
}

// localServes tells whether the own member is of use: it runs and has a leader. Nothing else shows at once that it is cut off.
func (k *KV) localServes() bool {
	if k.local == nil {
		return false
	}
	select {
	case <-k.server.StopNotify():
		return false
	default:
		return k.others == nil || k.server.Leader() != 0
	}
}

// try calls do with a member's client until it succeeds, fails for good, or four attempts' time has passed.
func (k *KV) try(ctx context.Context, final func(error) bool, do func(context.Context, clientv3.KV) error) error {
	if k.others == nil {
		return do(ctx, k.local)
	}
	giveUp := k.clock.Now().Add(4 * k.attempt)
	for first := true; ; first = false {
		var kv clientv3.KV = k.others
		if k.localServes() && first {
			kv = k.local
		}
		err := k.tryOnce(ctx, kv, do)
		if err == nil || ctx.Err() != nil || final(err) || !k.clock.Now().Before(giveUp) {
			return err
		}
		timer := k.clock.NewTimer(retryPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// retryPause lies between two attempts: an election takes some hundred milliseconds.
const retryPause = 50 * time.Millisecond

// Away reports whether an error says that no quorum of etcd answered, or not in time: what was asked may be asked again later.
func Away(err error) bool {
	var refused rpctypes.EtcdError
	if errors.As(err, &refused) {
		return refused.Code() == codes.Unavailable // of all that is about the quorum or its leader
	}
	code := grpc.Code(err)
	return errors.Is(err, context.DeadlineExceeded) || code == codes.Unavailable || code == codes.DeadlineExceeded
}

// undecided makes every error that says that etcd is away a deadline as well, as metadata.KV has it: clients are told to ask again.
func undecided(err error) error {
	if err == nil || !Away(err) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
}

// finalRead are errors of reads that no other member cures.
func finalRead(err error) bool { return errors.Is(err, rpctypes.ErrCompacted) }

// finalWrite are all errors but two, of which it is certain that nothing was proposed: a member knows of no leader, or is the
// leader and hands over. The second has no code of its own (raft.ErrProposalDropped).
func finalWrite(err error) bool {
	return !errors.Is(err, rpctypes.ErrNoLeader) && (errors.Is(err, errNoAnswer) || !strings.HasSuffix(err.Error(), "raft proposal dropped"))
}

func (k *KV) get(ctx context.Context, key string, opts ...clientv3.OpOption) (resp *clientv3.GetResponse, err error) {
	err = k.try(ctx, finalRead, func(ctx context.Context, kv clientv3.KV) (err error) {
		resp, err = kv.Get(ctx, key, opts...)
		return err
	})
	return resp, undecided(err)
}

func keyValue(kv *mvccpb.KeyValue) metadata.KeyValue {
	return metadata.KeyValue{Key: string(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision}
}

// Get implements metadata.KV.
func (k *KV) Get(ctx context.Context, key string) (metadata.KeyValue, bool, error) {
	resp, err := k.get(ctx, key)
	if err != nil {
		return metadata.KeyValue{}, false, fmt.Errorf("etcd get: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return metadata.KeyValue{}, false, nil
	}
	return keyValue(resp.Kvs[0]), true, nil
}

// List implements metadata.KV.
func (k *KV) List(ctx context.Context, prefix string) ([]metadata.KeyValue, int64, error) {
	for attempt := 1; ; attempt++ {
		kvs, revision, err := k.listOnce(ctx, prefix)
		if err == nil {
			return kvs, revision, nil
		}
		if !errors.Is(err, rpctypes.ErrCompacted) || attempt == listAttempts {
			return nil, 0, fmt.Errorf("etcd list: %w", err)
		}
	}
}

func (k *KV) listOnce(ctx context.Context, prefix string) (kvs []metadata.KeyValue, revision int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		resp, err := k.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageKeys), clientv3.WithRev(revision))
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			kvs = append(kvs, keyValue(kv))
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return kvs, revision, nil
		}
		from = kvs[len(kvs)-1].Key + "\x00"
	}
}

// Txn implements metadata.KV.
func (k *KV) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	ifs := make([]clientv3.Cmp, len(cmps))
	for i, c := range cmps {
		switch c.Kind {
		case metadata.CmpExists:
			ifs[i] = clientv3.Compare(clientv3.CreateRevision(c.Key), ">", 0)
		case metadata.CmpCreateRevision:
			ifs[i] = clientv3.Compare(clientv3.CreateRevision(c.Key), "=", c.Revision)
		default:
			ifs[i] = clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Revision)
		}
	}
	thens := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		if op.Delete {
			thens[i] = clientv3.OpDelete(op.Key)
		} else {
			thens[i] = clientv3.OpPut(op.Key, string(op.Value))
		}
	}
	var resp *clientv3.TxnResponse
	err := k.try(ctx, finalWrite, func(ctx context.Context, kv clientv3.KV) (err error) {
		resp, err = kv.Txn(ctx).If(ifs...).Then(thens...).Commit()
		return err
	})
	if err != nil {
		return metadata.TxnResult{}, fmt.Errorf("etcd txn: %w", undecided(err))
	}
	return metadata.TxnResult{Committed: resp.Succeeded, Revision: resp.Header.Revision}, nil
}

// Watch implements metadata.KV.
func (k *KV) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(from)}
	w := watch{out: make(chan metadata.Events)}
	if k.localServes() {
		w.in, w.lost = k.watcher.Watch(ctx, prefix, opts...), k.server.StopNotify()
	} else {
		k.watchOthers(ctx, &w, prefix, append(opts, clientv3.WithProgressNotify()))
	}
	if !k.group.Go(func(closed context.Context) {
		defer close(w.out)
		defer w.close()
		defer cancel()
		defer context.AfterFunc(closed, cancel)()
		w.forward(ctx)
	}) {
		cancel()
		w.close()
		close(w.out)
	}
	return w.out
}

// watchOthers opens a watch over TCP. Its watcher is its own: those of one client share a stream, and a new watch would join
// one that hangs.
func (k *KV) watchOthers(ctx context.Context, w *watch, prefix string, opts []clientv3.OpOption) {
	w.watcher, w.clock = clientv3.NewWatcher(k.others), k.clock
	ctx, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	standing, done := context.WithTimeout(ctx, watchSilence)
	defer done()
	stop := context.AfterFunc(standing, cancel)
	w.in = w.watcher.Watch(ctx, prefix, opts...)
	stop()
}

// watch is one watch under way.
type watch struct {
	in   clientv3.WatchChan
	out  chan metadata.Events
	lost <-chan struct{} // closed when the own member has stopped: its client would try to reach it for ever

	// Of a watch over another node's member, which silence ends:
	watcher clientv3.Watcher
	cancel  context.CancelFunc
	clock   clock.Clock
}

func (w *watch) close() {
	if w.watcher != nil {
		w.cancel()
		_ = w.watcher.Close() // its streams are cancelled either way
	}
}

// forward translates until the watch ends.
func (w *watch) forward(ctx context.Context) {
	for {
		resp, err := w.next(ctx)
		if ctx.Err() != nil {
			return
		}
		events := metadata.Events{Err: err}
		if err == nil {
			events = translate(resp)
		}
		if events.Err == nil && len(events.Events) == 0 {
			continue
		}
		select {
		case w.out <- events:
		case <-ctx.Done():
			return
		}
		if events.Err != nil {
			return
		}
	}
}

// next waits for one response.
func (w *watch) next(ctx context.Context) (resp clientv3.WatchResponse, err error) {
	var silence <-chan time.Time
	if w.clock != nil {
		timer := w.clock.NewTimer(watchSilence)
		defer timer.Stop()
		silence = timer.C
	}
	select {
	case resp, ok := <-w.in:
		if !ok {
			return resp, errors.New("etcd watch: closed")
		}
		return resp, nil
	case <-w.lost:
		return resp, errors.New("etcd watch: the member has stopped")
	case <-silence:
		return resp, fmt.Errorf("etcd watch: %w", errSilent)
	case <-ctx.Done():
		return resp, ctx.Err()
	}
}

func translate(resp clientv3.WatchResponse) metadata.Events {
	if resp.CompactRevision != 0 {
		return metadata.Events{Err: fmt.Errorf("etcd watch: %w", metadata.ErrCompacted)}
	}
	if err := resp.Err(); err != nil {
		return metadata.Events{Err: fmt.Errorf("etcd watch: %w", err)}
	}
	events := metadata.Events{Revision: resp.Header.Revision, Events: make([]metadata.Event, len(resp.Events))}
	for i, e := range resp.Events {
		events.Events[i] = metadata.Event{KV: keyValue(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete}
	}
	if n := len(events.Events); n > 0 {
		// The header may be ahead of what this response carries.
		events.Revision = events.Events[n-1].KV.ModRevision
	}
	return events
}
