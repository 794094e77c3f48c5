// Package objtest is the acceptance test of buckets: one suite, split by clause of the contract in package objstore, that
// every implementation and every wrapper passes. What only some stores keep is not in it (a key that is a directory of
// another; what happens to a PUT that overwrites with the store's conditional writes switched off).
package objtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
)

// Run runs the suite. newBucket returns an empty bucket that is closed by the test that asked for it.
func Run(t *testing.T, newBucket func(t *testing.T) objstore.Bucket) {
	for _, clause := range []struct {
		name string
		test func(t *testing.T, b objstore.Bucket)
	}{
		{"PutThenGet", putThenGet},
		{"PutAnswersInfo", putAnswersInfo},
		{"PutExisting", putExisting},
		{"PutRaceHasOneWinner", putRace},
		{"PutForbidden", putForbidden},
		{"PutBadChecksum", putBadChecksum},
		{"PutBodyFails", putBodyFails},
		{"GetRanges", getRanges},
		{"GetPastTheEnd", getPastTheEnd},
		{"GetOwnsItsResult", getOwnsItsResult},
		{"Missing", missing},
		{"ListOrder", listOrder},
		{"ListPages", listPages},
		{"ListStops", listStops},
		{"DeleteIsIdempotent", deleteIdempotent},
		{"AbortUploadsLeavesObjects", abortUploads},
		{"CanceledContext", canceled},
		{"OddKeys", oddKeys},
	} {
		t.Run(clause.name, func(t *testing.T) {
			b := newBucket(t)
			clause.test(t, b)
			if err := b.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// Pattern returns n bytes that differ from seed to seed.
func Pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = rng.Read(b) // never fails
	return b
}

func mustPut(t *testing.T, b objstore.Bucket, key string, data []byte) objstore.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, objstore.BodyOf(data))
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return info
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func putThenGet(t *testing.T, b objstore.Bucket) {
	for _, n := range []int{1, 2, 4095, 4096, 70_000, 5 << 20} {
		key, data := fmt.Sprintf("v1/size/%d.seg", n), Pattern(uint64(n), n)
		mustPut(t, b, key, data)
		for _, length := range []int64{-1, int64(n)} {
			got, err := b.Get(t.Context(), key, 0, length)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("get %q length %d: %d bytes, equal %v, error %v", key, length, len(got), bytes.Equal(got, data), err)
			}
		}
	}
}

func putAnswersInfo(t *testing.T, b objstore.Bucket) {
	data := Pattern(1, 1000)
	before := time.Now().Add(-time.Minute)
	put := mustPut(t, b, "a/b", data)
	head, err := b.Head(t.Context(), "a/b")
	if err != nil {
		t.Fatalf("head: %v", err)
	}
	for what, i := range map[string]objstore.Info{"put": put, "head": head} {
		if i.Key != "a/b" || i.Size != 1000 || (i.HasCRC && i.CRC32C != objstore.Checksum(data)) {
			t.Errorf("%s: %+v, want a/b of 1000 bytes with crc %08x", what, i, objstore.Checksum(data))
		}
	}
	if !head.HasCRC {
		t.Errorf("head has no checksum")
	}
	if head.ModTime.Before(before) {
		t.Errorf("head: modified %v, before the put", head.ModTime)
	}
}

func putExisting(t *testing.T, b objstore.Bucket) {
	mustPut(t, b, "k", []byte("first"))
	_, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("second")))
	wantErr(t, "second put", err, objstore.ErrExists)
	_, err = b.Put(t.Context(), "k", objstore.BodyOf([]byte("first")))
	wantErr(t, "same put again", err, objstore.ErrExists)
	if got, err := b.Get(t.Context(), "k", 0, -1); string(got) != "first" {
		t.Errorf("get: %q, %v", got, err)
	}
}

func putRace(t *testing.T, b objstore.Bucket) {
	const writers = 8
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = b.Put(t.Context(), "race", objstore.BodyOf(Pattern(uint64(i), 10_000)))
		})
	}
	wg.Wait()
	winner := slices.Index(errs, nil)
	got, err := b.Get(t.Context(), "race", 0, -1)
	if winner < 0 || !bytes.Equal(got, Pattern(uint64(winner), 10_000)) {
		t.Fatalf("winner %d, get %v, errors %v", winner, err, errs)
	}
	for i, err := range errs {
		if i != winner {
			wantErr(t, fmt.Sprintf("writer %d", i), err, objstore.ErrExists)
		}
	}
}

func putForbidden(t *testing.T, b objstore.Bucket) {
	one := objstore.BodyOf([]byte("x"))
	for _, key := range []string{"", "/a", "a/", "a//b", "a/../b", ".", "a\x00b", "a\nb", "a\xff", strings.Repeat("s", 256), strings.Repeat("long/", 250) + "x"} {
		_, err := b.Put(t.Context(), key, one)
		wantErr(t, fmt.Sprintf("put %q", key), err, objstore.ErrInvalid)
	}
	_, err := b.Put(t.Context(), "empty", objstore.BodyOf(nil))
	wantErr(t, "empty object", err, objstore.ErrInvalid)
	if keys := listKeys(t, b, "", ""); len(keys) > 0 {
		t.Errorf("left behind: %q", keys)
	}
}

func putBadChecksum(t *testing.T, b objstore.Bucket) {
	body := objstore.BodyOf(Pattern(2, 5000))
	body.CRC32C ^= 1
	_, err := b.Put(t.Context(), "bad", body)
	wantErr(t, "put", err, objstore.ErrChecksum)
	_, err = b.Head(t.Context(), "bad")
	wantErr(t, "head", err, objstore.ErrNotFound)
}

// failingBody fails to read its second half.
type failingBody struct{ n int64 }

func (f failingBody) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.n/2 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func putBodyFails(t *testing.T, b objstore.Bucket) {
	const n = 1 << 20
	_, err := b.Put(t.Context(), "half", objstore.Body{ReaderAt: failingBody{n}, Size: n})
	wantErr(t, "put", err, objstore.ErrInvalid)
	wantErr(t, "put", err, io.ErrClosedPipe)
	_, err = b.Head(t.Context(), "half")
	wantErr(t, "head", err, objstore.ErrNotFound)
}

func getRanges(t *testing.T, b objstore.Bucket) {
	data := Pattern(3, 10_000)
	mustPut(t, b, "r", data)
	for _, r := range [][2]int64{{0, 1}, {0, 100}, {1, 1}, {4096, 4096}, {9_999, 1}, {9_000, 1_000}, {1, -1}, {9_999, -1}, {0, 9_999}} {
		want := data[r[0]:]
		if r[1] >= 0 {
			want = want[:r[1]]
		}
		got, err := b.Get(t.Context(), "r", r[0], r[1])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("get [%d, +%d): %d bytes, %v", r[0], r[1], len(got), err)
		}
	}
	if got, err := b.Get(t.Context(), "r", 5, 0); err != nil || len(got) > 0 {
		t.Errorf("get of nothing: %d bytes, %v", len(got), err)
	}
}

func getPastTheEnd(t *testing.T, b objstore.Bucket) {
	mustPut(t, b, "r", Pattern(4, 100))
	for _, r := range [][2]int64{{0, 101}, {50, 51}, {99, 2}, {100, 1}, {100, -1}, {1000, 10}, {1000, -1}} {
		_, err := b.Get(t.Context(), "r", r[0], r[1])
		wantErr(t, fmt.Sprintf("get [%d, +%d)", r[0], r[1]), err, objstore.ErrRange)
	}
	_, err := b.Get(t.Context(), "r", -1, 5)
	wantErr(t, "get at -1", err, objstore.ErrInvalid)
}

func getOwnsItsResult(t *testing.T, b objstore.Bucket) {
	mustPut(t, b, "r", []byte("unchanged"))
	got, err := b.Get(t.Context(), "r", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	clear(got)
	if again, err := b.Get(t.Context(), "r", 0, -1); string(again) != "unchanged" {
		t.Errorf("get after the caller changed the first result: %q, %v", again, err)
	}
}

func missing(t *testing.T, b objstore.Bucket) {
	_, err := b.Get(t.Context(), "no/such", 0, -1)
	wantErr(t, "get", err, objstore.ErrNotFound)
	_, err = b.Get(t.Context(), "no/such", 10, 10)
	wantErr(t, "ranged get", err, objstore.ErrNotFound)
	_, err = b.Head(t.Context(), "no/such")
	wantErr(t, "head", err, objstore.ErrNotFound)
	if base.IsCorruption(err) {
		t.Errorf("head: a missing object is marked as corruption: %v", err)
	}
	if keys := listKeys(t, b, "no/", ""); len(keys) > 0 {
		t.Errorf("list: %q", keys)
	}
}

func listKeys(t *testing.T, b objstore.Bucket, prefix, startAfter string) []string {
	t.Helper()
	var keys []string
	for info, err := range b.List(t.Context(), prefix, startAfter) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, startAfter, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// listOrder compares List with a sorted slice for many prefixes and starts. The keys surround the slash in byte order.
func listOrder(t *testing.T, b objstore.Bucket) {
	keys := []string{"a!/1", "a-b", "a.b/c", "a/b-c/d", "a/b/c", "a/b/d/e", "a/c", "a0", "aa/b", "b", "c/d/e/f/g", "c/d0"}
	for i, k := range keys {
		mustPut(t, b, k, Pattern(uint64(i), i+1))
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "a-", "c/d/", "c/d", "zz", "a/b/c"} {
		for _, after := range []string{"", "a", "a-b", "a/", "a/b", "a/b/c", "a/b/zzz", "a/c", "c", "zz"} {
			var want []string
			for _, k := range keys {
				if strings.HasPrefix(k, prefix) && k > after {
					want = append(want, k)
				}
			}
			if got := listKeys(t, b, prefix, after); !slices.Equal(got, want) {
				t.Errorf("list %q after %q:\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
	for info, err := range b.List(t.Context(), "a0", "") {
		if err != nil || info.Size != int64(slices.Index([]string{"a!/1", "a-b", "a.b/c", "a/b-c/d", "a/b/c", "a/b/d/e", "a/c", "a0"}, "a0")+1) || info.ModTime.IsZero() {
			t.Errorf("list a0: %+v, %v", info, err)
		}
	}
}

func listPages(t *testing.T, b objstore.Bucket) {
	const n = 1_050 // more than one page of S3
	var want []string
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		key := fmt.Sprintf("p/%02d/%05d", i%7, i)
		want = append(want, key)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if _, err := b.Put(t.Context(), key, objstore.BodyOf([]byte(key))); err != nil {
				t.Errorf("put %q: %v", key, err)
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	if got := listKeys(t, b, "p/", ""); !slices.Equal(got, want) {
		t.Errorf("list: %d keys, want %d, sorted %v", len(got), len(want), slices.IsSorted(got))
	}
	if got := listKeys(t, b, "", want[n-10]); !slices.Equal(got, want[n-9:]) {
		t.Errorf("list after %q: %q", want[n-10], got)
	}
	if err := b.Delete(t.Context(), append(want, "p/never/was")...); err != nil {
		t.Errorf("delete: %v", err)
	}
	if got := listKeys(t, b, "", ""); len(got) > 0 {
		t.Errorf("%d keys after delete, first %q", len(got), got[0])
	}
}

func listStops(t *testing.T, b objstore.Bucket) {
	for i := range 5 {
		mustPut(t, b, fmt.Sprintf("s/%d", i), []byte("x"))
	}
	n := 0
	for _, err := range b.List(t.Context(), "s/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d objects before the break", n)
	}
}

func deleteIdempotent(t *testing.T, b objstore.Bucket) {
	mustPut(t, b, "d/1", []byte("1"))
	mustPut(t, b, "d/2", []byte("2"))
	mustPut(t, b, "d/3/4", []byte("4"))
	for range 2 {
		if err := b.Delete(t.Context(), "d/1", "d/3/4", "d/none"); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
	if err := b.Delete(t.Context(), "d/none"); err != nil {
		t.Errorf("delete of one missing object: %v", err)
	}
	if err := b.Delete(t.Context()); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	if got := listKeys(t, b, "", ""); !slices.Equal(got, []string{"d/2"}) {
		t.Errorf("left: %q", got)
	}
	_, err := b.Get(t.Context(), "d/1", 0, -1)
	wantErr(t, "get of a deleted object", err, objstore.ErrNotFound)
	wantErr(t, "delete of a bad key", b.Delete(t.Context(), "a//b"), objstore.ErrInvalid)
}

func abortUploads(t *testing.T, b objstore.Bucket) {
	mustPut(t, b, "u/1", []byte("1"))
	n, err := b.AbortUploads(t.Context(), "u/", time.Now().Add(time.Hour))
	if err != nil || n != 0 {
		t.Errorf("abort uploads: %d, %v", n, err)
	}
	if got := listKeys(t, b, "", ""); !slices.Equal(got, []string{"u/1"}) {
		t.Errorf("left: %q", got)
	}
}

func canceled(t *testing.T, b objstore.Bucket) {
	mustPut(t, b, "c", []byte("c"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Get(ctx, "c", 0, -1)
	wantErr(t, "get", err, context.Canceled)
	_, err = b.Head(ctx, "c")
	wantErr(t, "head", err, context.Canceled)
	_, err = b.Put(ctx, "c2", objstore.BodyOf([]byte("x")))
	wantErr(t, "put", err, context.Canceled)
	wantErr(t, "delete", b.Delete(ctx, "c"), context.Canceled)
	var last error
	for _, err := range b.List(ctx, "", "") {
		last = err
	}
	wantErr(t, "list", last, context.Canceled)
	if got := listKeys(t, b, "", ""); !slices.Equal(got, []string{"c"}) {
		t.Errorf("left: %q", got)
	}
}

func oddKeys(t *testing.T, b objstore.Bucket) {
	keys := []string{
		"odd/ space", "odd/%23", "odd/#/x", "odd/+plus", "odd/ünïcode", "odd/a=b&c", "odd/.hidden", "odd/.upload-1", "odd/~x", "odd/(1)",
		"odd/" + strings.Repeat("n", 255), strings.Repeat("d", 255) + "/x", "odd/日本語/🦭",
	}
	for i, k := range keys {
		mustPut(t, b, k, Pattern(uint64(i), 10))
	}
	slices.Sort(keys)
	if got := listKeys(t, b, "", ""); !slices.Equal(got, keys) {
		t.Errorf("list:\n got %q\nwant %q", got, keys)
	}
	for _, k := range keys {
		if i, err := b.Head(t.Context(), k); err != nil || i.Key != k || i.Size != 10 {
			t.Errorf("head %q: %+v, %v", k, i, err)
		}
	}
	if err := b.Delete(t.Context(), keys...); err != nil {
		t.Errorf("delete: %v", err)
	}
	if got := listKeys(t, b, "", ""); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}
