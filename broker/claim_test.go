package broker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/mem"
)

// claimant is a cluster's way to a bucket.
func claimant(t *testing.T, bucket objstore.Bucket, kv *memkv.KV, cluster string, tiered bool) *claim {
	t.Helper()
	return &claim{
		Bucket: bucket, kv: kv, cluster: func() string { return cluster }, slot: make(chan struct{}, 1),
		tiered: func(context.Context) (bool, error) { return tiered, nil },
	}
}

func newKV(t *testing.T) *memkv.KV {
	t.Helper()
	kv := memkv.New(memkv.Options{})
	t.Cleanup(kv.Close)
	return kv
}

// away is a bucket that does not answer.
type away struct {
	objstore.Bucket
	err  error  // nil: it answers
	once func() // what happens while the first one is answered, after which it answers
}

func (a *away) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	if err := a.err; err != nil {
		if a.once != nil {
			a.once()
			a.err = nil
		}
		return nil, err
	}
	return a.Bucket.Get(ctx, key, off, length)
}

func names(t *testing.T, bucket objstore.Bucket) (out []string) {
	t.Helper()
	for info, err := range bucket.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, info.Key)
	}
	return out
}

func TestABucketHasOneCluster(t *testing.T) {
	bucket, kv := mem.New(mem.Options{}), newKV(t)
	body := objstore.BodyOf([]byte("x"))
	for range 2 { // and again after a restart
		c := claimant(t, bucket, kv, "a", false)
		if err := c.ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(t.Context(), "v1/x", body); err != nil && !errors.Is(err, objstore.ErrExists) {
			t.Fatal(err)
		}
	}
	other := claimant(t, bucket, newKV(t), "b", false)
	for what, err := range map[string]error{"start": other.ensure(t.Context()), "delete": other.Delete(t.Context(), "v1/x")} {
		if !errors.Is(err, errForeignBucket) || !strings.Contains(err.Error(), "names cluster a, this is cluster b") {
			t.Errorf("%s by another cluster: %v", what, err)
		}
	}
	if got := names(t, bucket); len(got) != 2 {
		t.Errorf("the other cluster changed the bucket: %v", got)
	}
	if err := claimant(t, mem.New(mem.Options{}), kv, "a", true).ensure(t.Context()); !errors.Is(err, errForeignBucket) || !strings.Contains(err.Error(), "has claimed its bucket before") {
		t.Errorf("an empty bucket in the place of the cluster's: %v", err)
	}
}

// Brokers that start at the same time: each finds no mark, and then that another one has made it.
func TestBrokersOfOneClusterClaimTogether(t *testing.T) {
	store, kv := mem.New(mem.Options{}), newKV(t)
	first := claimant(t, store, kv, "a", false)
	late := claimant(t, &away{Bucket: store, err: objstore.ErrNotFound, once: func() {
		if _, err := first.Put(t.Context(), "v1/x", objstore.BodyOf([]byte("x"))); err != nil {
			t.Error(err)
		}
	}}, kv, "a", false)
	if err := late.ensure(t.Context()); err != nil {
		t.Error(err)
	}
}

// Buckets from before there was a mark: its own cluster gives one to it, another one does not.
func TestABucketWithoutAMark(t *testing.T) {
	bucket := mem.New(mem.Options{})
	if _, err := bucket.Put(t.Context(), "v1/x", objstore.BodyOf([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if err := claimant(t, bucket, newKV(t), "b", false).ensure(t.Context()); !errors.Is(err, errForeignBucket) || !strings.Contains(err.Error(), "it holds v1/x") {
		t.Errorf("a new cluster: %v", err)
	}
	if got := names(t, bucket); len(got) != 1 {
		t.Errorf("it was marked: %v", got)
	}
	if err := claimant(t, bucket, newKV(t), "a", true).ensure(t.Context()); err != nil {
		t.Errorf("the cluster that has tiered into it: %v", err)
	}
}

// A bucket that is away at the start holds up writes alone, and ends the broker if it turns out to be another cluster's.
func TestABucketThatIsAwayAtTheStart(t *testing.T) {
	store := mem.New(mem.Options{})
	bucket := &away{Bucket: store, err: errors.New("away")}
	c := claimant(t, bucket, newKV(t), "a", false)
	if _, err := c.Put(t.Context(), "v1/x", objstore.BodyOf([]byte("x"))); !errors.Is(err, bucket.err) || len(names(t, store)) != 0 {
		t.Fatalf("a write to it: %v", err)
	}
	bucket.err = nil
	if _, err := c.Put(t.Context(), "v1/x", objstore.BodyOf([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	var ended error
	late := claimant(t, bucket, newKV(t), "b", false)
	late.refused = func(err error) { ended = err }
	if _, err := late.Put(t.Context(), "v1/y", objstore.BodyOf([]byte("x"))); !errors.Is(err, errForeignBucket) || !errors.Is(ended, errForeignBucket) {
		t.Errorf("%v, the broker ends with %v", err, ended)
	}
}
