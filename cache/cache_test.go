package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/fault"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/objstore/objtest"
)

// source counts downloads per range and can hold them back.
type source struct {
	objstore.Bucket
	running, peak atomic.Int64
	gate          chan struct{} // where set, each Get takes one token
	started       chan string   // where set, gets a line per Get

	mu struct {
		sync.Mutex
		gets map[string]int
	}
}

func newSource(b objstore.Bucket) *source {
	s := &source{Bucket: b}
	s.mu.gets = map[string]int{}
	return s
}

func (s *source) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	line := fmt.Sprintf("%s@%d", key, off)
	s.mu.Lock()
	s.mu.gets[line]++
	s.mu.Unlock()
	n := s.running.Add(1)
	defer s.running.Add(-1)
	for p := s.peak.Load(); n > p && !s.peak.CompareAndSwap(p, n); p = s.peak.Load() {
	}
	if s.started != nil {
		s.started <- line
	}
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Bucket.Get(ctx, key, off, length)
}

func (s *source) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, k := range s.mu.gets {
		n += k
	}
	return n
}

func bucketWith(t testing.TB, objects map[string][]byte) objstore.Bucket {
	t.Helper()
	b := mem.New(mem.Options{})
	for k, data := range objects {
		if _, err := b.Put(context.Background(), k, objstore.BodyOf(data)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func newCache(t testing.TB, src objstore.Reader, opts Options) *Cache {
	t.Helper()
	c, err := New(src, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		checkBudgets(t, c)
	})
	waitFor(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.mu.diskReady || opts.DiskBytes == 0
	})
	return c
}

// checkBudgets asserts that nothing stays reserved once all flights have landed, and that the indexes add up.
func checkBudgets(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.flights) > 0 || c.mu.memory.reserved != 0 || c.mu.disk.reserved != 0 || c.mu.readAheadBytes != 0 {
		t.Errorf("left: %d flights, reserved %d and %d bytes, read-ahead %d bytes", len(c.mu.flights), c.mu.memory.reserved, c.mu.disk.reserved, c.mu.readAheadBytes)
	}
	if got := sumOf(&c.mu.memory); got != c.mu.memory.used || got > c.opts.MemoryBytes {
		t.Errorf("memory: entries have %d bytes, used says %d, limit %d", got, c.mu.memory.used, c.opts.MemoryBytes)
	}
	if got := sumOf(&c.mu.disk); got != c.mu.disk.used || got > c.opts.DiskBytes {
		t.Errorf("disk: entries have %d bytes, used says %d, limit %d", got, c.mu.disk.used, c.opts.DiskBytes)
	}
}

func sumOf[V any](t *tier[V]) (sum int64) {
	for _, blocks := range t.objects {
		for _, e := range blocks {
			sum += e.bytes
		}
	}
	return sum
}

// waitFor polls a condition that other goroutines bring about.
func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come about")
		}
		<-tick.C
	}
}

// settle waits until no flight is under way.
func settle(t testing.TB, c *Cache) {
	t.Helper()
	waitFor(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.mu.flights) == 0
	})
}

func mustRead(t testing.TB, c *Cache, key string, object []byte, off int64, n int) {
	t.Helper()
	got, err := c.ReadAt(context.Background(), key, int64(len(object)), off, n)
	if err != nil || !bytes.Equal(got, object[off:off+int64(n)]) {
		t.Errorf("read %s [%d, +%d): %d bytes, error %v", key, off, n, len(got), err)
	}
}

// TestReadsEqualObject is metamorphic: whatever the sizes of blocks, tiers and budgets, whatever is prefetched and dropped,
// whatever readers run beside, a read equals the bytes of the object.
func TestReadsEqualObject(t *testing.T) {
	objects := map[string][]byte{}
	for i, n := range []int{1, 63, 64, 65, 1000, 4096, 30_000} {
		objects[fmt.Sprintf("o/%d", n)] = objtest.Pattern(uint64(i), n)
	}
	for i, opts := range []Options{
		{BlockBytes: 64},
		{BlockBytes: 1 << 20, MemoryBytes: 1 << 20},
		{BlockBytes: 64, MemoryBytes: 64},
		{BlockBytes: 100, MemoryBytes: 5_000, MaxDownloads: 2},
		{BlockBytes: 64, MemoryBytes: 1_000, DiskBytes: 100_000, ReadAheadBytes: 500},
		{BlockBytes: 1024, DiskBytes: 20_000},
		{BlockBytes: 4096, DiskBytes: 1 << 20, MemoryBytes: 10_000, MaxDownloads: 1},
		{BlockBytes: 7, DiskBytes: 4096, MemoryBytes: 7},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			opts.FS, opts.Dir = vfs.NewMem(), "/cache"
			c := newCache(t, newSource(bucketWith(t, objects)), opts)
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() { readRandomly(t, c, objects, uint64(i*100+g), opts.BlockBytes) })
			}
			wg.Wait()
			settle(t, c)
		})
	}
}

func readRandomly(t *testing.T, c *Cache, objects map[string][]byte, seed uint64, blockBytes int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var keys []string
	for _, n := range []int{1, 63, 64, 65, 1000, 4096, 30_000} {
		keys = append(keys, fmt.Sprintf("o/%d", n))
	}
	for range 150 {
		key := keys[rng.IntN(len(keys))]
		object := objects[key]
		off := rng.IntN(len(object))
		n := rng.IntN(min(len(object)-off, 20*blockBytes) + 1)
		switch rng.IntN(10) {
		case 0:
			c.Drop(key)
		case 1, 2:
			c.Prefetch(key, int64(len(object)), int64(off), int64(n))
		default:
			got, err := c.ReadAt(context.Background(), key, int64(len(object)), int64(off), n)
			if err != nil || !bytes.Equal(got, object[off:off+n]) {
				t.Errorf("seed %d: read %s [%d, +%d): %v", seed, key, off, n, err)
				return
			}
		}
	}
}

func TestBadRange(t *testing.T) {
	c := newCache(t, newSource(bucketWith(t, nil)), Options{})
	for _, r := range [][2]int64{{-1, 1}, {0, 11}, {10, 1}, {11, 1}, {5, -1}, {1 << 62, 1 << 20}} {
		if _, err := c.ReadAt(t.Context(), "k", 10, r[0], int(r[1])); !errors.Is(err, objstore.ErrRange) {
			t.Errorf("read [%d, +%d) of 10: %v", r[0], r[1], err)
		}
	}
	if got, err := c.ReadAt(t.Context(), "k", 10, 5, 0); err != nil || len(got) > 0 {
		t.Errorf("read of nothing: %q, %v", got, err)
	}
}

func TestSourceErrorsAreNotCached(t *testing.T) {
	object := objtest.Pattern(1, 100)
	b := fault.Wrap(bucketWith(t, map[string][]byte{"k": object, "short": object}), nil, fault.FailNth(1))
	c := newCache(t, b, Options{MemoryBytes: 1 << 20, BlockBytes: 64})
	if _, err := c.ReadAt(t.Context(), "k", 100, 0, 10); !errors.Is(err, fault.ErrInjected) {
		t.Fatalf("first read: %v", err)
	}
	settle(t, c)
	mustRead(t, c, "k", object, 0, 100)
	if _, err := c.ReadAt(t.Context(), "none", 100, 0, 10); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("missing object: %v", err)
	}
	if _, err := c.ReadAt(t.Context(), "short", 120, 100, 10); !errors.Is(err, objstore.ErrRange) {
		t.Errorf("object shorter than the caller believes: %v", err)
	}
	if _, err := c.ReadAt(t.Context(), "k", 120, 100, 10); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("two callers, two sizes: %v", err)
	}
}

func TestOneDownloadPerBlock(t *testing.T) {
	object := objtest.Pattern(1, 1000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	src.gate, src.started = make(chan struct{}), make(chan string, 100)
	c := newCache(t, src, Options{MemoryBytes: 1 << 20, BlockBytes: 100})

	// The first reader gives up; the download goes on, for the others.
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.ReadAt(ctx, "k", 1000, 250, 10)
		first <- err
	}()
	<-src.started
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("first reader: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := c.ReadAt(t.Context(), "k", 1000, 200, 100); err != nil || !bytes.Equal(got, object[200:300]) {
				t.Errorf("read: %v", err)
			}
		})
	}
	src.gate <- struct{}{}
	wg.Wait()
	if n := src.total(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
}

func TestDownloadsAreBounded(t *testing.T) {
	object := objtest.Pattern(1, 10_000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	src.gate, src.started = make(chan struct{}), make(chan string, 1000)
	c := newCache(t, src, Options{MemoryBytes: 1 << 20, BlockBytes: 100, MaxDownloads: 3})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { mustRead(t, c, "k", object, int64(i)*1000, 1000) })
	}
	for range 3 {
		<-src.started
	}
	close(src.gate)
	wg.Wait()
	if p := src.peak.Load(); p != 3 {
		t.Errorf("%d downloads at a time, want 3", p)
	}
	if n := src.total(); n != 100 {
		t.Errorf("%d downloads, want 100", n)
	}
}

func TestPrefetchIsBoundedAndGivesWay(t *testing.T) {
	object := objtest.Pattern(1, 10_000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	src.gate, src.started = make(chan struct{}), make(chan string, 1000)
	c := newCache(t, src, Options{MemoryBytes: 1 << 20, BlockBytes: 100, MaxDownloads: 4, ReadAheadBytes: 500})
	c.Prefetch("k", 10_000, 0, 10_000)
	c.mu.Lock()
	flights, bytes := len(c.mu.flights), c.mu.readAheadBytes
	c.mu.Unlock()
	if flights != 5 || bytes != 500 {
		t.Errorf("%d flights, %d bytes under way, want 5 and 500", flights, bytes)
	}
	running := map[string]bool{<-src.started: true, <-src.started: true} // two tokens of four

	// A reader of a block that waits for a token of read-ahead does not wait for it.
	waiting := int64(0)
	for running[fmt.Sprintf("k@%d", waiting)] {
		waiting += 100
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		mustRead(t, c, "k", object, waiting, 100)
	}()
	if got, want := <-src.started, fmt.Sprintf("k@%d", waiting); got != want {
		t.Errorf("started %s, want %s", got, want)
	}
	close(src.gate)
	<-read
	settle(t, c)
	before := src.total()
	mustRead(t, c, "k", object, 0, 500)
	if n := src.total(); n != before || n != 5 {
		t.Errorf("%d downloads, then %d, want 5", before, n)
	}
}

func TestScanDoesNotFlushWhatIsReadAgain(t *testing.T) {
	hot, cold := objtest.Pattern(1, 1000), objtest.Pattern(2, 100_000)
	src := newSource(bucketWith(t, map[string][]byte{"hot": hot, "cold": cold}))
	c := newCache(t, src, Options{MemoryBytes: 4000, BlockBytes: 100})
	for range 4 {
		mustRead(t, c, "hot", hot, 0, 1000)
	}
	for off := int64(0); off < 100_000; off += 100 {
		mustRead(t, c, "cold", cold, off, 100)
	}
	before := src.total()
	mustRead(t, c, "hot", hot, 0, 1000)
	if n := src.total() - before; n != 0 {
		t.Errorf("%d blocks of what was read four times were gone after a scan", n)
	}
}

func TestCloseEndsWaits(t *testing.T) {
	src := newSource(bucketWith(t, map[string][]byte{"k": objtest.Pattern(1, 100)}))
	src.gate, src.started = make(chan struct{}), make(chan string, 1)
	c := newCache(t, src, Options{MemoryBytes: 1000})
	read := make(chan error, 1)
	go func() {
		_, err := c.ReadAt(context.Background(), "k", 100, 0, 100)
		read <- err
	}()
	<-src.started
	c.Close()
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("waiting reader: %v", err)
	}
	if _, err := c.ReadAt(context.Background(), "k", 100, 0, 100); !errors.Is(err, ErrClosed) {
		t.Errorf("reader after Close: %v", err)
	}
	c.Prefetch("k", 100, 0, 100)
}

func TestOptionsValidate(t *testing.T) {
	for _, o := range []Options{{MemoryBytes: -1}, {DiskBytes: 1}, {BlockBytes: -1}, {MaxDownloads: -1}, {BlockBytes: 2 << 30}} {
		if _, err := New(nil, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// failingFS fails the writes that match, with a full disk.
func failingFS(fs vfs.FS, full *atomic.Bool) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpFileWrite {
			return vfsENOSPC
		}
		return nil
	}))
}

func TestFullDiskPausesWrites(t *testing.T) {
	object := objtest.Pattern(1, 1000)
	src := newSource(bucketWith(t, map[string][]byte{"k": object}))
	var full atomic.Bool
	full.Store(true)
	clk := clock.NewManual(time.Unix(1000, 0))
	disk := vfs.NewMem()
	c := newCache(t, src, Options{DiskBytes: 1 << 20, Dir: "/c", FS: failingFS(disk, &full), BlockBytes: 100, Clock: clk, WritePause: time.Minute})
	read := func(block int64, wantDownloads int) {
		t.Helper()
		before := src.total()
		mustRead(t, c, "k", object, block*100, 100)
		settle(t, c)
		if n := src.total() - before; n != wantDownloads {
			t.Errorf("block %d: %d downloads, want %d", block, n, wantDownloads)
		}
	}
	read(0, 1) // fails to write
	full.Store(false)
	read(1, 1) // within the pause
	read(1, 1)
	if files := blockFiles(t, disk, "/c"); len(files) != 0 {
		t.Errorf("files after failed writes: %q", files)
	}
	clk.Advance(time.Minute)
	read(1, 1)
	read(1, 0)
	if files := blockFiles(t, disk, "/c"); len(files) != 1 {
		t.Errorf("files after the pause: %q", files)
	}
}
