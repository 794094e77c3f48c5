package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/objtest"
)

func open(t *testing.T, disk vfs.FS) *Bucket {
	t.Helper()
	b, err := Open("/bucket", Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keysOf(t *testing.T, b *Bucket) []string {
	t.Helper()
	var keys []string
	for i, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, i.Key)
	}
	return keys
}

func TestObjectAndDirectoryCoexist(t *testing.T) {
	b := open(t, vfs.NewMem())
	keys := []string{"a", "a/b", "a/b/c", "a/b/c/d"}
	for _, k := range keys {
		if _, err := b.Put(t.Context(), k, objstore.BodyOf([]byte(k))); err != nil {
			t.Fatalf("put %s: %v", k, err)
		}
	}
	if got := keysOf(t, b); !slices.Equal(got, keys) {
		t.Errorf("list: %q", got)
	}
	if err := b.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "a/b/c", "a/b/c/d"} {
		if got, err := b.Get(t.Context(), k, 0, -1); string(got) != k {
			t.Errorf("get %s: %q, %v", k, got, err)
		}
	}
}

func TestDeleteRemovesEmptyDirectories(t *testing.T) {
	disk := vfs.NewMem()
	b := open(t, disk)
	for _, k := range []string{"x/y/1", "x/z/2"} {
		if _, err := b.Put(t.Context(), k, objstore.BodyOf([]byte(k))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(t.Context(), "x/y/1"); err != nil {
		t.Fatal(err)
	}
	if names, _ := disk.List("/bucket/x"); !slices.Equal(names, []string{"z"}) {
		t.Errorf("below x: %q", names)
	}
	if err := b.Delete(t.Context(), "x/z/2"); err != nil {
		t.Fatal(err)
	}
	if names, _ := disk.List("/bucket"); !slices.Equal(names, []string{markerName}) {
		t.Errorf("below the root: %q", names)
	}
}

// TestPutSurvivesCrashAnywhere crashes the disk before every one of its operations, losing any part of what was not
// synced. The object is whole or absent, whole once Put has answered, and a Put after the restart succeeds.
func TestPutSurvivesCrashAnywhere(t *testing.T) {
	data := objtest.Pattern(7, 600_000)
	for n := int64(1); ; n++ {
		disk := vfs.NewCrashableMem()
		b := open(t, disk)
		if _, err := b.Put(t.Context(), "v1/old/1.seg", objstore.BodyOf(data)); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		var ops atomic.Int64
		b.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(errorfs.Op) error {
			if ops.Add(1) == n {
				crashed = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(n * 37 % 101), RNG: rand.New(rand.NewPCG(uint64(n), 0))})
			}
			return nil
		}))
		if _, err := b.Put(t.Context(), "v1/new/2.seg", objstore.BodyOf(data)); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			// The Put had answered before its n-th operation.
			checkAfterCrash(t, disk.CrashClone(vfs.CrashCloneCfg{}), data, n, true)
			if n < 15 {
				t.Errorf("only %d disk operations in a put", n)
			}
			return
		}
		checkAfterCrash(t, crashed, data, n, false)
	}
}

func checkAfterCrash(t *testing.T, disk vfs.FS, data []byte, n int64, answered bool) {
	t.Helper()
	b := open(t, disk)
	if got, err := b.Get(t.Context(), "v1/old/1.seg", 0, -1); !bytes.Equal(got, data) {
		t.Fatalf("crash %d: the old object: %v", n, err)
	}
	got, err := b.Get(t.Context(), "v1/new/2.seg", 0, -1)
	if absent := errors.Is(err, objstore.ErrNotFound); (absent && answered) || (!absent && !bytes.Equal(got, data)) {
		t.Fatalf("crash %d: the new object: %d bytes, %v", n, len(got), err)
	}
	if _, err := b.AbortUploads(t.Context(), "", time.Now().Add(time.Hour)); err != nil {
		t.Fatalf("crash %d: abort uploads: %v", n, err)
	}
	if _, err := b.Put(t.Context(), "v1/new/2.seg", objstore.BodyOf(data)); err != nil && !errors.Is(err, objstore.ErrExists) {
		t.Fatalf("crash %d: put again: %v", n, err)
	}
	if keys := keysOf(t, b); !slices.Equal(keys, []string{"v1/new/2.seg", "v1/old/1.seg"}) {
		t.Errorf("crash %d: keys %q", n, keys)
	}
	for _, dir := range []string{"/bucket/v1/new/#", "/bucket/v1/old/#"} {
		if names, err := disk.List(dir); err != nil || len(names) != 1 {
			t.Errorf("crash %d: left in %s: %q, %v", n, dir, names, err)
		}
	}
}

// TestNewRootSurvivesCrash crashes after the first Put into a bucket whose directory, and those above it, are new.
func TestNewRootSurvivesCrash(t *testing.T) {
	disk := vfs.NewCrashableMem()
	b, err := Open("/data/of/varve/bucket", Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	b.fs = disk.CrashClone(vfs.CrashCloneCfg{})
	if got, err := b.Get(t.Context(), "k", 0, -1); string(got) != "x" {
		t.Errorf("get: %q, %v", got, err)
	}
}

// TestEveryDiskErrorOfPut fails each operation of a Put in turn. It answers the error or succeeds; the object is whole or
// absent; and where it answered an error, a second Put succeeds or says that the object exists, whole.
func TestEveryDiskErrorOfPut(t *testing.T) {
	data := objtest.Pattern(8, 300_000)
	full := fmt.Errorf("injected: %w", syscall.ENOSPC)
	for n := int64(1); ; n++ {
		disk := vfs.NewMem()
		b := open(t, disk)
		var ops atomic.Int64
		b.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if ops.Add(1) == n {
				return full
			}
			return nil
		}))
		_, err := b.Put(t.Context(), "a/b", objstore.BodyOf(data))
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("operation %d: %v", n, err)
		}
		failed := err != nil
		b.fs = disk
		if _, err := b.Head(t.Context(), "a/b"); failed && !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("operation %d: put failed, head says %v", n, err)
		}
		if _, err := b.Put(t.Context(), "a/b", objstore.BodyOf(data)); failed != (err == nil) || (!failed && !errors.Is(err, objstore.ErrExists)) {
			t.Errorf("operation %d: put failed %v, put again: %v", n, failed, err)
		}
		if got, err := b.Get(t.Context(), "a/b", 0, -1); !bytes.Equal(got, data) {
			t.Fatalf("operation %d: get: %v", n, err)
		}
		if ops.Load() < n {
			return
		}
	}
}

func TestAbortUploadsRemovesLeftovers(t *testing.T) {
	disk := vfs.NewMem()
	b := open(t, disk)
	if _, err := b.Put(t.Context(), "p/q/1", objstore.BodyOf([]byte("1"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bucket/#/.upload-x", "/bucket/p/q/#/.upload-y", "/bucket/p/q/#/.upload-z", "/bucket/p/r/#/.upload-w"} {
		if err := disk.MkdirAll(disk.PathDir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Create(path, "test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	f := func(prefix string, before time.Time, want int) {
		t.Helper()
		if n, err := b.AbortUploads(t.Context(), prefix, before); err != nil || n != want {
			t.Errorf("abort uploads below %q: %d, %v, want %d", prefix, n, err, want)
		}
	}
	f("", time.Now().Add(-time.Hour), 0)
	f("p/q/", time.Now().Add(time.Hour), 2)
	f("p/none/", time.Now().Add(time.Hour), 0)
	f("", time.Now().Add(time.Hour), 2)
	f("", time.Now().Add(time.Hour), 0)
	if keys := keysOf(t, b); !slices.Equal(keys, []string{"p/q/1"}) {
		t.Errorf("keys: %q", keys)
	}
}

// TestDamageIsCorruption flips every bit of the trailer, some of the object, and cuts the file.
func TestDamageIsCorruption(t *testing.T) {
	const size = 100
	for i := range (size + trailerBytes) * 8 {
		disk := vfs.NewMem()
		b := open(t, disk)
		if _, err := b.Put(t.Context(), "k", objstore.BodyOf(objtest.Pattern(1, size))); err != nil {
			t.Fatal(err)
		}
		damageFile(t, disk, "/bucket/#/k", func(data []byte) []byte { data[i/8] ^= 1 << (i % 8); return data })
		if _, err := b.Get(t.Context(), "k", 0, -1); !base.IsCorruption(err) {
			t.Errorf("bit %d flipped: get: %v", i, err)
		}
		if _, err := b.Head(t.Context(), "k"); i/8 >= size && !base.IsCorruption(err) {
			t.Errorf("bit %d flipped: head: %v", i, err)
		}
	}
	for n := range size + trailerBytes {
		disk := vfs.NewMem()
		b := open(t, disk)
		if _, err := b.Put(t.Context(), "k", objstore.BodyOf(objtest.Pattern(1, size))); err != nil {
			t.Fatal(err)
		}
		damageFile(t, disk, "/bucket/#/k", func(data []byte) []byte { return data[:n] })
		if _, err := b.Get(t.Context(), "k", 0, 1); !base.IsCorruption(err) {
			t.Errorf("cut to %d bytes: get: %v", n, err)
		}
	}
}

func damageFile(t *testing.T, disk vfs.FS, path string, change func([]byte) []byte) {
	t.Helper()
	f, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if f, err = disk.Create(path, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(change(data)); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestFormat pins the bytes on disk that FORMAT.md describes.
func TestFormat(t *testing.T) {
	disk := vfs.NewMem()
	b := open(t, disk)
	if _, err := b.Put(t.Context(), "a#/.b/c%", objstore.BodyOf([]byte("123456789"))); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open("/bucket/a%23/%2Eb/#/c%25")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if want := "123456789VARVOBJ1\x00\x00\x00\x00\x00\x00\x00\x09\xe3\x06\x92\x83\x7f\x0c\xde\x0a"; err != nil || string(got) != want {
		t.Errorf("file:\n got %q\nwant %q", got, want)
	}
}

func TestForeignFilesAreNotListed(t *testing.T) {
	disk, root := vfs.Default, t.TempDir()
	b, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{root + "/README", root + "/#/%zz", root + "/#/.hidden", root + "/.git/#/config"} {
		if err := disk.MkdirAll(disk.PathDir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Create(path, "test")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if keys := keysOf(t, b); len(keys) > 0 {
		t.Errorf("keys: %q", keys)
	}
}

func TestOddPrefixes(t *testing.T) {
	b := open(t, vfs.NewMem())
	if _, err := b.Put(t.Context(), "a/b", objstore.BodyOf([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"a//", "/a", "/", "../", "a/../", "./", strings.Repeat("x", 300) + "/", "a/b/", "#/", "%61/"} {
		for i, err := range b.List(context.Background(), prefix, "") {
			t.Errorf("list %q: %q, %v", prefix, i.Key, err)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"a", ".", "..", "#", "%", "%23", "a.b", ".upload-", "日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, seg string) {
		name := escape(seg)
		if name == objectsDir || strings.HasPrefix(name, ".") {
			t.Fatalf("%q escapes to the reserved name %q", seg, name)
		}
		if back, ok := unescape(name); !ok || back != seg {
			t.Fatalf("%q escapes to %q, back to %q, %v", seg, name, back, ok)
		}
	})
}

func FuzzDecodeTrailer(f *testing.F) {
	f.Add(encodeTrailer(100, 7), int64(124))
	f.Add([]byte(nil), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, fileSize int64) {
		size, crc, err := decodeTrailer(b, fileSize)
		if err == nil && (!bytes.Equal(encodeTrailer(size, crc), b) || size != fileSize-trailerBytes) {
			t.Fatalf("%x of %d bytes decoded as %d, %08x", b, fileSize, size, crc)
		}
		if err != nil && !base.IsCorruption(err) {
			t.Fatal(err)
		}
	})
}
