package mem

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
)

func TestStricterThanStores(t *testing.T) {
	b := New(Options{ForbidReuse: true})
	put := func(key string) error {
		_, err := b.Put(t.Context(), key, objstore.BodyOf([]byte(key)))
		return err
	}
	if err := put("a/b"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "a/b/c"} {
		if err := put(key); !errors.Is(err, objstore.ErrInvalid) {
			t.Errorf("put %s beside a/b: %v", key, err)
		}
	}
	if err := b.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if err := put("a/b"); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("put under a used name: %v", err)
	}
	want := []string{"put a/b size=3: ok", "put a size=1: invalid", "put a/b/c size=5: invalid", "delete a/b: ok", "put a/b size=3: invalid"}
	if got := b.Trace(); !slices.Equal(got, want) {
		t.Errorf("trace:\n got %q\nwant %q", got, want)
	}
}

func TestTraceIsBounded(t *testing.T) {
	b := New(Options{TraceOps: 2})
	for _, k := range []string{"1", "2", "3"} {
		b.Head(t.Context(), k)
	}
	if got, want := b.Trace(), []string{"head 2: not_found", "head 3: not_found"}; !slices.Equal(got, want) {
		t.Errorf("trace: %q", got)
	}
}

func TestUploads(t *testing.T) {
	now := time.Unix(1000, 0)
	b := New(Options{Clock: clock.NewManual(now)})
	b.StartUpload("p/1", now)
	b.StartUpload("p/2", now.Add(time.Hour))
	b.StartUpload("q/1", now)
	if n, err := b.AbortUploads(t.Context(), "p/", now.Add(time.Minute)); n != 1 || err != nil {
		t.Errorf("abort: %d, %v", n, err)
	}
	if n, err := b.AbortUploads(t.Context(), "", now.Add(2*time.Hour)); n != 2 || err != nil {
		t.Errorf("abort the rest: %d, %v", n, err)
	}
}

func TestCorrupt(t *testing.T) {
	b := New(Options{})
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte{0, 0})); err != nil {
		t.Fatal(err)
	}
	if !b.Corrupt("k", 1) || b.Corrupt("k", 2) || b.Corrupt("none", 0) {
		t.Error("what Corrupt reports")
	}
	if got, err := b.Get(t.Context(), "k", 0, -1); !slices.Equal(got, []byte{0, 1}) {
		t.Errorf("get: %v, %v", got, err)
	}
}
