// Package kvtest is the acceptance test of metadata.KV: what package metadata relies on, for every implementation.
package kvtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/metadata"
)

// Subject is an implementation under test.
type Subject struct {
	// New returns an empty store.
	New func(t *testing.T) metadata.KV
	// Compact drops history up to a revision; nil where the test cannot.
	Compact func(t *testing.T, kv metadata.KV, revision int64)
}

// Run runs all tests.
func Run(t *testing.T, s Subject) {
	t.Run("Txn", func(t *testing.T) { testTxn(t, s.New(t)) })
	t.Run("List", func(t *testing.T) { testList(t, s.New(t)) })
	t.Run("Limits", func(t *testing.T) { testLimits(t, s.New(t)) })
	t.Run("Watch", func(t *testing.T) { testWatch(t, s.New(t)) })
	t.Run("WatchCompacted", func(t *testing.T) {
		if s.Compact == nil {
			t.Skip("history cannot be compacted here")
		}
		testCompacted(t, s, s.New(t))
	})
	t.Run("Counter", func(t *testing.T) { testCounter(t, s.New(t)) })
	t.Run("Cancelled", func(t *testing.T) { testCancelled(t, s.New(t)) })
}

func commit(t *testing.T, kv metadata.KV, want bool, cmps []metadata.Cmp, ops ...metadata.Op) int64 {
	t.Helper()
	res, err := kv.Txn(t.Context(), cmps, ops)
	if err != nil {
		t.Fatal(err)
	}
	if res.Committed != want {
		t.Fatalf("committed %v, want %v: if %v then %v", res.Committed, want, cmps, ops)
	}
	return res.Revision
}

func get(t *testing.T, kv metadata.KV, key string) (metadata.KeyValue, bool) {
	t.Helper()
	got, ok, err := kv.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return got, ok
}

func testTxn(t *testing.T, kv metadata.KV) {
	put := metadata.Put("/a", []byte("1"))
	commit(t, kv, false, []metadata.Cmp{metadata.Exists("/a")}, put)
	created := commit(t, kv, true, []metadata.Cmp{metadata.Absent("/a")}, put)
	commit(t, kv, false, []metadata.Cmp{metadata.Absent("/a")}, put)
	commit(t, kv, false, []metadata.Cmp{metadata.Unchanged("/a", created-1)}, put)
	changed := commit(t, kv, true, []metadata.Cmp{metadata.Unchanged("/a", created), metadata.Exists("/a")},
		metadata.Put("/a", []byte("2")), metadata.Put("/b", nil))
	if changed <= created {
		t.Fatalf("revision %d after %d", changed, created)
	}
	a, ok := get(t, kv, "/a")
	if !ok || string(a.Value) != "2" || a.CreateRevision != created || a.ModRevision != changed {
		t.Fatalf("a: %+v", a)
	}
	if b, ok := get(t, kv, "/b"); !ok || len(b.Value) != 0 || b.CreateRevision != changed {
		t.Fatalf("b: %+v %v", b, ok)
	}
	commit(t, kv, true, []metadata.Cmp{{Key: "/a", Kind: metadata.CmpCreateRevision, Revision: created}}, metadata.Delete("/a"))
	if _, ok := get(t, kv, "/a"); ok {
		t.Fatal("deleted key is there")
	}
	commit(t, kv, true, []metadata.Cmp{metadata.Absent("/a")}, metadata.Delete("/a")) // of what is not there
	again := commit(t, kv, true, []metadata.Cmp{metadata.Absent("/a")}, put)
	if a, _ := get(t, kv, "/a"); a.CreateRevision != again {
		t.Fatalf("created at %d, want %d", a.CreateRevision, again)
	}
	// All or none: the second compare fails.
	commit(t, kv, false, []metadata.Cmp{metadata.Exists("/a"), metadata.Absent("/b")}, metadata.Put("/c", nil))
	if _, ok := get(t, kv, "/c"); ok {
		t.Fatal("a refused transaction wrote")
	}
}

func testList(t *testing.T, kv metadata.KV) {
	const keys = 2500 // more than two pages
	var want []string
	for start := 0; start < keys; start += 100 {
		var ops []metadata.Op
		for i := start; i < start+100; i++ {
			key := fmt.Sprintf("/p/%05d", i)
			want = append(want, key)
			ops = append(ops, metadata.Put(key, []byte(key)))
		}
		commit(t, kv, true, nil, ops...)
	}
	last := commit(t, kv, true, nil, metadata.Put("/p", nil), metadata.Put("/p0", nil), metadata.Put("/o", nil))
	kvs, revision, err := kv.List(t.Context(), "/p/")
	if err != nil {
		t.Fatal(err)
	}
	if revision != last {
		t.Errorf("listed at revision %d, want %d", revision, last)
	}
	var got []string
	for _, e := range kvs {
		if e.Key != string(e.Value) {
			t.Fatalf("key %s has value %s", e.Key, e.Value)
		}
		got = append(got, e.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d keys in some order, want %d sorted", len(got), len(want))
	}
	if kvs, _, err := kv.List(t.Context(), "/none/"); err != nil || len(kvs) != 0 {
		t.Errorf("empty prefix: %v %v", kvs, err)
	}
}

func testLimits(t *testing.T, kv metadata.KV) {
	ops := make([]metadata.Op, metadata.MaxTxnOps+1)
	cmps := make([]metadata.Cmp, metadata.MaxTxnOps)
	for i := range ops {
		ops[i] = metadata.Put(fmt.Sprintf("/l/%d", i), nil)
	}
	for i := range cmps {
		cmps[i] = metadata.Absent(fmt.Sprintf("/l/%d", i))
	}
	if _, err := kv.Txn(t.Context(), nil, ops); err == nil {
		t.Error("a transaction above the limit was taken")
	}
	commit(t, kv, true, cmps, ops[:metadata.MaxTxnOps]...)
	if _, err := kv.Txn(t.Context(), nil, []metadata.Op{metadata.Put("/d", nil), metadata.Put("/d", nil)}); err == nil {
		t.Error("a transaction that writes a key twice was taken")
	}
}

func testWatch(t *testing.T, kv metadata.KV) {
	first := commit(t, kv, true, nil, metadata.Put("/w/1", []byte("a")), metadata.Put("/x", nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := kv.Watch(ctx, "/w/", first)
	commit(t, kv, true, nil, metadata.Put("/x", nil))
	second := commit(t, kv, true, nil, metadata.Put("/w/1", []byte("b")), metadata.Put("/w/2", []byte("c")))
	third := commit(t, kv, true, nil, metadata.Delete("/w/1"))
	type seen struct {
		key, value string
		deleted    bool
		revision   int64
	}
	want := []seen{{"/w/1", "a", false, first}, {"/w/1", "b", false, second}, {"/w/2", "c", false, second}, {"/w/1", "", true, third}}
	var got []seen
	revision := int64(0)
	for len(got) < len(want) {
		batch, ok := receive(t, events)
		if !ok || batch.Err != nil {
			t.Fatalf("the watch ended: %v", batch.Err)
		}
		for _, e := range batch.Events {
			if e.KV.ModRevision <= revision {
				t.Fatalf("event of revision %d after revision %d was complete", e.KV.ModRevision, revision)
			}
			got = append(got, seen{e.KV.Key, string(e.KV.Value), e.Deleted, e.KV.ModRevision})
		}
		revision = batch.Revision
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if revision < third {
		t.Errorf("revision %d, want at least %d", revision, third)
	}
	cancel()
	for range events { // closed, sooner or later
	}
}

func receive(t *testing.T, events <-chan metadata.Events) (metadata.Events, bool) {
	t.Helper()
	select {
	case batch, ok := <-events:
		return batch, ok
	case <-time.After(30 * time.Second): // a hang, not a measure
		t.Fatal("nothing came")
		return metadata.Events{}, false
	}
}

func testCompacted(t *testing.T, s Subject, kv metadata.KV) {
	first := commit(t, kv, true, nil, metadata.Put("/c", nil))
	for range 5 {
		commit(t, kv, true, nil, metadata.Put("/c", nil))
	}
	last := commit(t, kv, true, nil, metadata.Put("/c", nil))
	s.Compact(t, kv, last)
	batch, ok := receive(t, kv.Watch(t.Context(), "/c", first))
	if !ok || !errors.Is(batch.Err, metadata.ErrCompacted) {
		t.Fatalf("watch of compacted history: %v %v", batch, ok)
	}
	if _, ok := get(t, kv, "/c"); !ok {
		t.Error("compaction took the current value")
	}
}

// testCounter has many writers increment by compare-and-swap: none may be lost.
func testCounter(t *testing.T, kv metadata.KV) {
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				cur, _, err := kv.Get(t.Context(), "/n")
				if err != nil {
					t.Error(err)
					return
				}
				next := append(slices.Clone(cur.Value), 'x')
				res, err := kv.Txn(t.Context(), []metadata.Cmp{metadata.Unchanged("/n", cur.ModRevision)}, []metadata.Op{metadata.Put("/n", next)})
				if err != nil {
					t.Error(err)
					return
				}
				if res.Committed {
					done++
				}
			}
		})
	}
	wg.Wait()
	if n, _ := get(t, kv, "/n"); len(n.Value) != writers*each {
		t.Errorf("counted %d, want %d", len(n.Value), writers*each)
	}
}

func testCancelled(t *testing.T, kv metadata.KV) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kv.Txn(ctx, nil, []metadata.Op{metadata.Put("/k", nil)}); !errors.Is(err, context.Canceled) {
		t.Errorf("txn of a cancelled context: %v", err)
	}
	if _, _, err := kv.Get(ctx, "/k"); !errors.Is(err, context.Canceled) {
		t.Errorf("get of a cancelled context: %v", err)
	}
}
