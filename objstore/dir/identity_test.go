package dir

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/uuid"

	"github.com/varvelog/varve/objstore"
)

// operations answers the error of each operation of the bucket, which holds the object old.
func operations(ctx context.Context, b *Bucket) map[string]error {
	_, get := b.Get(ctx, "old", 0, -1)
	_, head := b.Head(ctx, "none/at/all")
	_, put := b.Put(ctx, "new", objstore.BodyOf([]byte("x")))
	_, abort := b.AbortUploads(ctx, "", time.Unix(0, 0))
	var list error
	for _, err := range b.List(ctx, "", "") {
		list = errors.Join(list, err)
	}
	return map[string]error{"get": get, "head": head, "put": put, "abort": abort, "list": list, "delete": b.Delete(ctx, "gone")}
}

func checkAway(t *testing.T, b *Bucket) {
	t.Helper()
	for name, err := range operations(t.Context(), b) {
		if err == nil || !objstore.Classify(err).Retryable() {
			t.Errorf("%s: error %v of class %s", name, err, objstore.Classify(err))
		}
	}
}

func checkThere(t *testing.T, b *Bucket) {
	t.Helper()
	for name, err := range operations(t.Context(), b) {
		if name == "head" && !errors.Is(err, objstore.ErrNotFound) || name != "head" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func putOld(t *testing.T, b *Bucket) {
	t.Helper()
	_, err := b.Put(t.Context(), "old", objstore.BodyOf([]byte("x")))
	check(t, err)
}

func names(t *testing.T, disk vfs.FS, path string) []string {
	t.Helper()
	out, err := disk.List(path)
	check(t, err)
	slices.Sort(out)
	return out
}

// TestBucketGoesAway moves the directory away, leaves an empty one in its place (a mount point), and moves it back.
func TestBucketGoesAway(t *testing.T) {
	disk, root := vfs.Default, t.TempDir()+"/bucket"
	var logged bytes.Buffer
	b, err := Open(root, Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	check(t, err)
	putOld(t, b)
	check(t, disk.Rename(root, root+".away"))
	checkAway(t, b)
	if _, err := disk.Stat(root); err == nil {
		t.Error("the directory was made anew")
	}
	check(t, disk.MkdirAll(root, 0o755))
	checkAway(t, b)
	if got := names(t, disk, root); len(got) > 0 {
		t.Errorf("in the mount point: %q", got)
	}
	check(t, disk.Remove(root))
	check(t, disk.Rename(root+".away", root))
	checkThere(t, b)
	if n := strings.Count(logged.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors logged:\n%s", n, &logged)
	}
}

// TestBucketGoesAwayDuringPut moves the directory away before every disk operation of a Put: what it answers for as
// written is in the bucket, not in a directory that it made in its place.
func TestBucketGoesAwayDuringPut(t *testing.T) {
	for n := int64(1); ; n++ {
		disk := vfs.NewMem()
		b := open(t, disk)
		putOld(t, b)
		var ops atomic.Int64
		b.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(errorfs.Op) error {
			if ops.Add(1) == n {
				return disk.Rename("/bucket", "/away")
			}
			return nil
		}))
		_, err := b.Put(t.Context(), "a/b", objstore.BodyOf([]byte("y")))
		if ops.Load() < n {
			return
		}
		away, openErr := Open("/away", Options{FS: disk})
		check(t, openErr)
		if _, headErr := away.Head(t.Context(), "a/b"); err == nil && headErr != nil {
			t.Errorf("moved before operation %d: the put succeeded, head says %v", n, headErr)
		}
		if _, err := disk.Stat("/bucket/a/b/#"); err == nil {
			t.Errorf("moved before operation %d: objects in its place", n)
		}
		if _, err := disk.Stat("/bucket/a/#/b"); err == nil {
			t.Errorf("moved before operation %d: an object in its place", n)
		}
	}
}

// TestFileInPlaceOfTheBucket opens a path that cannot be a directory (I13): the bucket works once it can, and no new one
// is made meanwhile.
func TestFileInPlaceOfTheBucket(t *testing.T) {
	disk, root := vfs.Default, t.TempDir()+"/bucket"
	b, err := Open(root, Options{})
	check(t, err)
	putOld(t, b)
	check(t, disk.Rename(root, root+".away"))
	check(t, writeSynced(disk, root, ""))
	var logged bytes.Buffer
	b, err = Open(root, Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	check(t, err)
	if !strings.Contains(logged.String(), "level=ERROR") {
		t.Errorf("logged: %s", &logged)
	}
	checkAway(t, b)
	check(t, disk.Remove(root))
	checkAway(t, b)
	check(t, disk.Rename(root+".away", root))
	checkThere(t, b)
}

// TestBucketWithoutMarker opens what a version without markers left, and directories that hold nothing.
func TestBucketWithoutMarker(t *testing.T) {
	for _, existing := range []bool{false, true} {
		disk := vfs.NewMem()
		putOld(t, open(t, disk))
		check(t, disk.Remove("/bucket/"+markerName))
		b, err := Open("/bucket", Options{FS: disk, Existing: existing})
		check(t, err)
		if got := names(t, disk, "/bucket"); !slices.Equal(got, []string{"#", markerName}) {
			t.Errorf("in the root: %q", got)
		}
		checkThere(t, b)
	}
	disk := vfs.NewMem()
	check(t, disk.MkdirAll("/bucket", 0o755))
	for _, opts := range []Options{{Existing: true}, {Identity: uuid.NewString()}} {
		opts.FS = disk
		b, err := Open("/bucket", opts)
		check(t, err)
		checkAway(t, b)
		if got := names(t, disk, "/bucket"); len(got) > 0 {
			t.Errorf("made a bucket of the empty directory: %q", got)
		}
	}
}

func TestOtherBucketIsRefused(t *testing.T) {
	disk := vfs.NewMem()
	first := open(t, disk)
	putOld(t, first)
	b, err := Open("/bucket", Options{FS: disk, Identity: uuid.NewString()})
	check(t, err)
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err == nil || !strings.Contains(err.Error(), *first.identity.Load()) {
		t.Errorf("put into another bucket: %v", err)
	}
	b, err = Open("/bucket", Options{FS: disk, Identity: *first.identity.Load()})
	check(t, err)
	checkThere(t, b)
	for _, text := range []string{"", "x\n", strings.Repeat("0", 1000)} {
		check(t, writeSynced(disk, "/bucket/"+markerName, text))
		if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err == nil {
			t.Errorf("put with the marker %q", text)
		}
	}
}

// TestClaimBeforeUse: an operation is performed only after the identity was taken down, which survives a crash.
func TestClaimBeforeUse(t *testing.T) {
	disk := vfs.NewCrashableMem()
	var claimed []string
	refusal := errors.New("etcd is away")
	b, err := Open("/bucket", Options{FS: disk, Claim: func(_ context.Context, id string) error {
		claimed = append(claimed, id)
		return refusal
	}})
	check(t, err)
	if _, err := b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); !errors.Is(err, refusal) {
		t.Errorf("put before the claim: %v", err)
	}
	after, err := Open("/bucket", Options{FS: disk.CrashClone(vfs.CrashCloneCfg{}), Identity: claimed[0]})
	check(t, err)
	if _, err := after.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Errorf("after a crash: %v", err)
	}
	refusal = nil
	putOld(t, b)
	checkThere(t, b)
	if len(claimed) != 2 || claimed[0] != claimed[1] {
		t.Errorf("claimed %q", claimed)
	}
}
