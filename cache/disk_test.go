package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/objstore/objtest"
)

var vfsENOSPC = fmt.Errorf("write: %w", syscall.ENOSPC)

func blockFiles(t testing.TB, disk vfs.FS, root string) []string {
	t.Helper()
	var files []string
	formats, err := disk.List(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range formats {
		shards, _ := disk.List(disk.PathJoin(root, format))
		for _, shard := range shards {
			names, _ := disk.List(disk.PathJoin(root, format, shard))
			for _, n := range names {
				files = append(files, disk.PathJoin(root, format, shard, n))
			}
		}
	}
	slices.Sort(files)
	return files
}

func TestRestartServesFromDisk(t *testing.T) {
	object := objtest.Pattern(1, 10_000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	opts := Options{DiskBytes: 1 << 20, Dir: t.TempDir(), BlockBytes: 1000}
	c := newCache(t, src, opts)
	mustRead(t, c, "k", object, 0, 10_000)
	settle(t, c)
	c.Close()

	c = newCache(t, src, opts)
	mustRead(t, c, "k", object, 0, 10_000)
	if n := src.total(); n != 10 {
		t.Errorf("%d downloads, want the first 10", n)
	}
	c.Close()

	// Less room: the rest goes, the budget holds (newCache checks it). Each file takes 4 KiB.
	opts.DiskBytes = 3 * 4096
	c = newCache(t, src, opts)
	if files := blockFiles(t, vfs.Default, opts.Dir); len(files) != 3 {
		t.Errorf("%d files with room for 3", len(files))
	}
	mustRead(t, c, "k", object, 0, 10_000)
	settle(t, c)
	if files := blockFiles(t, vfs.Default, opts.Dir); len(files) != 3 {
		t.Errorf("%d files with room for 3", len(files))
	}
	c.Close()

	// Another block size: nothing of the old format stays.
	opts.BlockBytes = 2000
	newCache(t, src, opts)
	if files := blockFiles(t, vfs.Default, opts.Dir); len(files) != 0 {
		t.Errorf("files of another block size: %q", files)
	}
}

// TestDamagedBlocksAreMisses flips, cuts and extends block files in every way; reads stay right and the files go.
// A disk without room for others gets back what the cache has there, also what a start finds, and nothing new until there is room.
func TestFullDiskKeepsNoBlocks(t *testing.T) {
	object := objtest.Pattern(1, 10_000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	opts := Options{DiskBytes: 1 << 20, Dir: t.TempDir(), BlockBytes: 1000}
	c := newCache(t, src, opts)
	read := func(files, downloads int) {
		t.Helper()
		mustRead(t, c, "k", object, 0, 10_000)
		settle(t, c)
		if got := blockFiles(t, vfs.Default, opts.Dir); len(got) != files || src.total() != downloads {
			t.Errorf("%d files after %d downloads, want %d after %d", len(got), src.total(), files, downloads)
		}
	}
	read(10, 10)
	c.SetFull(true)
	read(0, 20)
	c.SetFull(false)
	read(10, 30)
	c.Close()
	c = newCache(t, src, opts)
	c.SetFull(true)
	settle(t, c)
	read(0, 40)
	c.Close()
}

func TestDamagedBlocksAreMisses(t *testing.T) {
	object := objtest.Pattern(1, 300)
	damages := map[string]func([]byte) []byte{
		"empty":    func(b []byte) []byte { return nil },
		"header":   func(b []byte) []byte { return b[:20] },
		"cut":      func(b []byte) []byte { return b[:len(b)-1] },
		"zeroes":   func(b []byte) []byte { return make([]byte, len(b)) },
		"zeroTail": func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"otherKey": func(b []byte) []byte { b[blockHeaderBytes] ^= 1; return b },
	}
	for i := range blockHeaderBytes + 1 + 300 {
		damages[fmt.Sprintf("bit%d", i)] = func(b []byte) []byte { b[i] ^= 1 << (i % 8); return b }
	}
	for name, damage := range damages {
		disk := vfs.NewMem()
		src := newSource(bucketWith(t, map[string][]byte{"k": object}))
		c := newCache(t, src, Options{DiskBytes: 1 << 20, Dir: "/c", FS: disk, BlockBytes: 300})
		mustRead(t, c, "k", object, 0, 300)
		settle(t, c)
		files := blockFiles(t, disk, "/c")
		if len(files) != 1 {
			t.Fatalf("%s: files %q", name, files)
		}
		rewrite(t, disk, files[0], damage)
		mustRead(t, c, "k", object, 0, 300)
		settle(t, c)
		if n := src.total(); n != 2 {
			t.Errorf("%s: %d downloads, want 2", name, n)
		}
		if after := blockFiles(t, disk, "/c"); len(after) != 1 || after[0] == files[0] {
			t.Errorf("%s: files %q, want one new one", name, after)
		}
		c.Close()
	}
}

func rewrite(t *testing.T, disk vfs.FS, path string, change func([]byte) []byte) {
	t.Helper()
	f, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if f, err = disk.Create(path, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(change(b)); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestCrashLeavesOnlyMisses crashes the disk, which loses any part of what was never synced, and reads everything again.
func TestCrashLeavesOnlyMisses(t *testing.T) {
	object := objtest.Pattern(1, 200_000)
	for seed := range uint64(30) {
		disk := vfs.NewCrashableMem()
		src := newSource(bucketWith(t, map[string][]byte{"k": object}))
		opts := Options{DiskBytes: 1 << 20, Dir: "/c", FS: disk, BlockBytes: 10_000}
		c := newCache(t, src, opts)
		mustRead(t, c, "k", object, 0, len(object))
		settle(t, c)
		opts.FS = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 80, RNG: rand.New(rand.NewPCG(seed, 0))})
		again := newCache(t, src, opts)
		mustRead(t, again, "k", object, 0, len(object))
		settle(t, again)
		c.Close()
		again.Close()
	}
}

func TestDropRemovesFiles(t *testing.T) {
	a, b := objtest.Pattern(1, 1000), objtest.Pattern(2, 1000)
	disk := vfs.NewMem()
	src := newSource(bucketWith(t, map[string][]byte{"a": a, "b": b}))
	c := newCache(t, src, Options{MemoryBytes: 1 << 20, DiskBytes: 1 << 20, Dir: "/c", FS: disk, BlockBytes: 100})
	mustRead(t, c, "a", a, 0, 1000)
	mustRead(t, c, "b", b, 0, 1000)
	settle(t, c)
	c.Drop("a")
	c.Drop("never read")
	if files := blockFiles(t, disk, "/c"); len(files) != 10 {
		t.Errorf("%d files, want those of b", len(files))
	}
	before := src.total()
	mustRead(t, c, "b", b, 0, 1000)
	if n := src.total() - before; n != 0 {
		t.Errorf("%d downloads of b after the drop of a", n)
	}
}

func TestDropOfAnObjectUnderWay(t *testing.T) {
	object := objtest.Pattern(1, 100)
	disk := vfs.NewMem()
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	src.gate, src.started = make(chan struct{}), make(chan string, 1)
	c := newCache(t, src, Options{MemoryBytes: 1 << 20, DiskBytes: 1 << 20, Dir: "/c", FS: disk})
	read := make(chan error, 1)
	go func() {
		_, err := c.ReadAt(context.Background(), "k", 100, 0, 100)
		read <- err
	}()
	<-src.started
	c.Drop("k")
	close(src.gate)
	if err := <-read; err != nil {
		t.Errorf("read: %v", err)
	}
	settle(t, c)
	if files := blockFiles(t, disk, "/c"); len(files) != 0 || sumOf(&c.mu.memory) != 0 {
		t.Errorf("kept: files %q, memory %d bytes", files, sumOf(&c.mu.memory))
	}
}

func TestScanRemovesForeignFiles(t *testing.T) {
	disk := vfs.NewMem()
	for _, path := range []string{"/c/v1-100/ab/garbage", "/c/v1-100/00/ab-1-2-3", "/c/v0-5/x/y"} {
		if err := disk.MkdirAll(disk.PathDir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Create(path, "test")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	newCache(t, newSource(bucketWith(t, nil)), Options{DiskBytes: 1 << 20, Dir: "/c", FS: disk, BlockBytes: 100})
	if files := blockFiles(t, disk, "/c"); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
}

func FuzzDecodeBlock(f *testing.F) {
	ref := blockRef{key: "some/key", objectSize: 1000, off: 100, size: 50}
	data := objtest.Pattern(1, 50)
	good := append(encodeBlockHeader(ref, data), data...)
	f.Add(good)
	f.Add(good[:blockHeaderBytes])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := decodeBlock(ref, file)
		if err != nil {
			if !errors.Is(err, errBadBlock) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !bytes.Equal(append(encodeBlockHeader(ref, got), got...), file) {
			t.Fatal("decoded a file that encode would not write")
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add(nameOf(blockID{object: objectOf("k"), index: 7}, 4096, 9))
	f.Add("-1-1-1")
	f.Add("0123456789abcdef0123456789abcdef-1-1-1")
	f.Fuzz(func(t *testing.T, name string) {
		id, n, seq, err := parseName(name)
		if err == nil && nameOf(id, n, seq) != name {
			t.Fatalf("%q parsed as %v %d %d", name, id, n, seq)
		}
	})
}

// TestUnusedBlocksAreRemoved starts without a disk tier where an earlier run had one.
func TestUnusedBlocksAreRemoved(t *testing.T) {
	disk := vfs.NewMem()
	object := objtest.Pattern(1, 1000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	c := newCache(t, src, Options{BlockBytes: 100, DiskBytes: 1 << 20, Dir: "/cache", FS: disk})
	mustRead(t, c, "k", object, 0, 1000)
	settle(t, c)
	c.Close()
	if names, err := disk.List("/cache"); err != nil || len(names) == 0 {
		t.Fatalf("the first run left %v (%v)", names, err)
	}
	newCache(t, src, Options{BlockBytes: 100, Dir: "/cache", FS: disk})
	waitFor(t, func() bool {
		names, err := disk.List("/cache")
		return err == nil && len(names) == 0
	})
}
