package metadata_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// rushing is a clock whose timers fire at once.
type rushing struct{ *clock.Manual }

func (c rushing) NewTimer(d time.Duration) *clock.Timer {
	t := c.Manual.NewTimer(d)
	c.Advance(d)
	return t
}

// breaking is a KV whose watches below the roots end after a few answers, in one way or another, and whose lists may fail.
type breaking struct {
	*memkv.KV
	rnd      *rand.Rand
	failList bool
	watches  int
}

func (b *breaking) List(ctx context.Context, prefix string) ([]metadata.KeyValue, int64, error) {
	if prefix == metadata.RootPrefix && b.failList {
		b.failList = false
		return nil, 0, errCrash
	}
	return b.KV.List(ctx, prefix)
}

func (b *breaking) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	in := b.KV.Watch(ctx, prefix, from)
	if prefix != metadata.RootPrefix {
		return in
	}
	b.watches++
	out := make(chan metadata.Events)
	left, withError := b.rnd.IntN(4), b.rnd.IntN(2) == 0
	go func() {
		defer close(out)
		for {
			var batch metadata.Events
			if left == 0 {
				if !withError {
					return
				}
				batch.Err = errCrash
			} else {
				var ok bool
				if batch, ok = <-in; !ok {
					return
				}
				left--
			}
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
			if batch.Err != nil {
				return
			}
		}
	}()
	return out
}

// mirror is what a caller of RootWatch makes of its updates.
type mirror map[base.LogID]metadata.Root

func (m mirror) apply(t *testing.T, u metadata.RootUpdate) {
	t.Helper()
	last := int64(0)
	for _, c := range u.Changes {
		if c.Rev < last || c.Rev > u.Revision {
			t.Fatalf("a change of revision %d after one of %d in an update to %d", c.Rev, last, u.Revision)
		}
		last = c.Rev
		old, known := m[c.Log]
		switch {
		case c.Gone && !known:
			t.Fatalf("log %s is gone, it was not there", c.Log)
		case c.Gone:
			delete(m, c.Log)
		case known && old.Rev >= c.Rev:
			t.Fatalf("log %s: revision %d after %d", c.Log, c.Rev, old.Rev)
		default:
			m[c.Log] = c.Root
		}
	}
}

// TestRootWatch writes and deletes roots at random while watches end, lists fail and history is compacted away: after each
// update the caller knows what there was at its revision, neither less nor more.
func TestRootWatch(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { followRoots(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func followRoots(t *testing.T, rnd *rand.Rand) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	b := &breaking{KV: kv, rnd: rnd, failList: true}
	s, err := metadata.Open(t.Context(), metadata.Options{KV: b, BrokerID: 1, Logger: slog.New(slog.DiscardHandler), Clock: rushing{clock.NewManual(time.Unix(0, 0))}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	truth, now := map[int64]mirror{}, mirror{} // by revision
	var last int64                             // revision of the last change of a root
	write := func() {
		log := base.LogID(1 + rnd.IntN(6))
		op := metadata.Delete(metadata.RootPrefix + log.String())
		root := metadata.Root{Log: log, Object: fmt.Sprint("o", rnd.Int()), TieredEnd: base.Offset(rnd.IntN(100))}
		_, there := now[log]
		if remove := there && rnd.IntN(3) == 0; !remove {
			value, err := json.Marshal(root)
			if err != nil {
				t.Fatal(err)
			}
			op = metadata.Put(op.Key, value)
		}
		res, err := kv.Txn(t.Context(), nil, []metadata.Op{op, metadata.Put("/varve/other", nil)})
		if err != nil {
			t.Fatal(err)
		}
		last, now = res.Revision, maps.Clone(now)
		root.Rev = last
		if op.Delete {
			delete(now, log)
		} else {
			now[log] = root
		}
		truth[last] = now
	}
	for range rnd.IntN(5) {
		write()
	}
	w := s.WatchRoots()
	defer w.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, errCrash) {
		t.Fatalf("the first list: %v", err)
	}
	seen, at := mirror{}, int64(-1)
	next := func() {
		u, err := w.Next(t.Context())
		if err != nil || u.Revision < at {
			t.Fatalf("update to %d after %d: %v", u.Revision, at, err)
		}
		seen.apply(t, u)
		at = u.Revision
		want := mirror{}
		for rev := at; rev > 0; rev-- {
			if m, ok := truth[rev]; ok {
				want = m
				break
			}
		}
		if !maps.Equal(seen, want) {
			t.Fatalf("at revision %d: %v, want %v", at, seen, want)
		}
	}
	next()
	for range 60 {
		for range rnd.IntN(4) {
			write()
		}
		if rnd.IntN(6) == 0 {
			kv.Compact(last)
		}
		b.failList = rnd.IntN(4) == 0
		for at < last && rnd.IntN(5) > 0 {
			next()
		}
	}
	for at < last {
		next()
	}
	if !maps.Equal(seen, now) || b.watches < 3 {
		t.Fatalf("%v, want %v; %d watches", seen, now, b.watches)
	}
}

// TestRootWatchEnds waits for a change that does not come, and goes on after that.
func TestRootWatchEnds(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	topic := create(t, s, "t", 2)
	w := s.WatchRoots()
	defer w.Close()
	if u, err := w.Next(t.Context()); err != nil || len(u.Changes) != 0 || u.Revision == 0 {
		t.Fatalf("%+v %v", u, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := w.Next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	root := &metadata.Root{Log: topic.Partitions[1].Log, Epoch: topic.Partitions[1].LeaderEpoch, Object: "o"}
	if errs := s.SwapRoots(t.Context(), []*metadata.Root{root}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	u, err := w.Next(t.Context())
	if err != nil || len(u.Changes) != 1 || u.Changes[0].Root != *root || u.Revision != root.Rev {
		t.Fatalf("%+v %v, want %+v", u, err, *root)
	}
	// What cannot be read is left out, and nothing else with it.
	if _, err := kv.Txn(t.Context(), nil, []metadata.Op{metadata.Put(metadata.RootPrefix+root.Log.String(), []byte("{")), metadata.Put(metadata.RootPrefix+"x", nil)}); err != nil {
		t.Fatal(err)
	}
	if u, err = w.Next(t.Context()); err != nil || len(u.Changes) != 0 || u.Revision <= root.Rev {
		t.Fatalf("%+v %v", u, err)
	}
}

// TestDeadIntents tells the intents of incarnations that are over from those that may still be at work.
func TestDeadIntents(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	put := func(id string, broker base.BrokerID, epoch int64) {
		t.Helper()
		if err := stores[1].PutIntent(t.Context(), metadata.Intent{ID: id, Broker: broker, Epoch: epoch}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(image *metadata.Image, want map[string]bool) {
		t.Helper()
		all, err := stores[1].Intents(t.Context())
		if err != nil || len(all) < 3 {
			t.Fatalf("%+v %v", all, err)
		}
		for i := range all {
			if got := all[i].Dead(image); got != want[all[i].ID] {
				t.Errorf("intent %s of broker %d, epoch %d: dead %v", all[i].ID, all[i].Broker, all[i].Epoch, got)
			}
		}
	}
	before := stores[1].Image()
	put("own", 1, epochs[1])
	put("two", 2, epochs[2])
	put("newcomer", 9, 1) // of a broker that registered after the image
	check(before, map[string]bool{})
	if err := stores[1].FenceBroker(t.Context(), reign, 2, epochs[2]); err != nil {
		t.Fatal(err)
	}
	// The image is newer than the intents now: what it does not show is gone. A fenced broker may be uploading.
	check(stores[1].Image(), map[string]bool{"newcomer": true})
	again, epoch := brokerStore(t, kv, 2, "a")
	put("two again", 2, epoch)
	check(before, map[string]bool{})
	catchUp(t, stores[1], again)
	check(stores[1].Image(), map[string]bool{"newcomer": true, "two": true})
}

// TestIntentGone tells a swap without its intent from one that the leader epoch fences.
func TestIntentGone(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	p := create(t, s, "t", 1).Partitions[0]
	root := func(epoch base.LeaderEpoch) []*metadata.Root {
		return []*metadata.Root{{Log: p.Log, Epoch: epoch, Object: "o"}}
	}
	err := s.SwapRoots(t.Context(), root(p.LeaderEpoch), "none")[0]
	if !errors.Is(err, metadata.ErrIntentGone) || !errors.Is(err, kerr.FencedLeaderEpoch) {
		t.Errorf("without its intent: %v", err)
	}
	err = s.SwapRoots(t.Context(), root(p.LeaderEpoch-1), "none")[0]
	if errors.Is(err, metadata.ErrIntentGone) || !errors.Is(err, kerr.FencedLeaderEpoch) {
		t.Errorf("under an older epoch: %v", err)
	}
}
