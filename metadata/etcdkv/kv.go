package etcdkv

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// pageKeys is how many keys one read of List takes at most.
const pageKeys = 1000

// listAttempts bounds how often List starts again because its revision was compacted away between two pages.
const listAttempts = 5

// KV is metadata.KV over etcd clients. It is safe for concurrent use.
type KV struct {
	kv      clientv3.KV
	watcher clientv3.Watcher
	group   *service.Group // one goroutine for each watch
}

func keyValue(kv *mvccpb.KeyValue) metadata.KeyValue {
	return metadata.KeyValue{Key: string(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision}
}

// Get implements metadata.KV.
func (k *KV) Get(ctx context.Context, key string) (metadata.KeyValue, bool, error) {
	resp, err := k.kv.Get(ctx, key)
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
		resp, err := k.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageKeys), clientv3.WithRev(revision))
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
	resp, err := k.kv.Txn(ctx).If(ifs...).Then(thens...).Commit()
	if err != nil {
		return metadata.TxnResult{}, fmt.Errorf("etcd txn: %w", err)
	}
	return metadata.TxnResult{Committed: resp.Succeeded, Revision: resp.Header.Revision}, nil
}

// Watch implements metadata.KV.
func (k *KV) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	in := k.watcher.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
	out := make(chan metadata.Events)
	if !k.group.Go(func(closed context.Context) {
		defer close(out)
		defer cancel()
		defer context.AfterFunc(closed, cancel)()
		forward(ctx, in, out)
	}) {
		cancel()
		close(out)
	}
	return out
}

// forward translates until the watch ends.
func forward(ctx context.Context, in clientv3.WatchChan, out chan<- metadata.Events) {
	for resp := range in {
		events := translate(resp)
		if events.Err == nil && len(events.Events) == 0 {
			continue
		}
		select {
		case out <- events:
		case <-ctx.Done():
			return
		}
		if events.Err != nil {
			return
		}
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
