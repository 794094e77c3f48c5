package hot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/testutil/crashfs"
	"github.com/varvelog/varve/record"
)

// TestReserve moves the free space up and down around the reserve.
func TestReserve(t *testing.T) {
	var free atomic.Uint64
	var broken atomic.Bool
	free.Store(5000)
	clk := clock.NewManual(time.Unix(0, 0))
	looked, reports := make(chan struct{}), make(chan bool, 8)
	opts := testOptions(vfs.NewMem())
	opts.Clock = clk
	opts.ReserveBytes = 800
	opts.OnDiskFull = func(full bool) { reports <- full }
	var polling atomic.Bool
	opts.FreeSpace = func() (uint64, error) {
		if polling.Load() {
			looked <- struct{}{}
		}
		if broken.Load() {
			return 0, errors.New("no answer")
		}
		return free.Load(), nil
	}
	s := openTest(t, opts)
	polling.Store(true)
	// look makes the poll look, and look again: then the first look has been judged and reported.
	look := func() {
		for range 2 {
			for polled := false; !polled; {
				select {
				case <-looked:
					polled = true
				default:
					clk.Advance(opts.SpacePollInterval + time.Second)
				}
			}
		}
	}
	for _, c := range []struct {
		free uint64
		full bool
	}{{800, false}, {799, true}, {800, true}, {899, true}, {900, false}, {850, false}, {0, true}, {5000, false}} {
		free.Store(c.free)
		before := s.Full()
		look()
		if s.Full() != c.full {
			t.Errorf("%d bytes free: full is %v", c.free, s.Full())
		}
		if before != c.full {
			if got := <-reports; got != c.full {
				t.Errorf("%d bytes free: reported %v", c.free, got)
			}
		}
		if len(reports) > 0 {
			t.Errorf("%d bytes free: reported without a change", c.free)
		}
	}
	broken.Store(true)
	look()
	if s.Full() {
		t.Error("full because nobody knows")
	}
	polling.Store(false)
	select {
	case <-looked: // a look may have started before
	default:
	}
}

// TestFatalfNeverReturns: Pebble reports success for a write that is not durable where its logger returns.
func TestFatalfNeverReturns(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	fatal := make(chan error, 1)
	opts.OnFatal = func(err error) { fatal <- err }
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	w := s.NewWrite()
	w.Append(1, testBatch(0, 1, 10, 1))
	c, err := s.Apply(w)
	if err != nil {
		t.Fatal(err)
	}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		pebbleLogger{s}.Fatalf("test %d", 7)
	}()
	if err := <-fatal; !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "test 7") {
		t.Errorf("OnFatal got %v", err)
	}
	if err := c.Wait(); err != nil && !errors.Is(err, ErrFailed) {
		t.Errorf("Wait: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("Close: %v", err)
	}
	select {
	case <-returned:
		t.Error("Fatalf returned")
	default:
	}
}

// TestFailingFlushBacksOff: a disk that refuses table files. Pebble retries without a pause; ours come with a growing pause, each of
// which the manual clock has to end, and after MaxTableFailures the store fails. Until then it serves.
func TestFailingFlushBacksOff(t *testing.T) {
	mem := vfs.NewMem()
	var refuse atomic.Bool
	var tries atomic.Int64
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && isTable(op.Path) && refuse.Load() {
			tries.Add(1)
			return syscall.EACCES
		}
		return nil
	}))
	clk := clock.NewManual(time.Unix(0, 0))
	opts := testOptions(fs)
	opts.Clock = clk
	opts.MaxTableFailures = 4
	fatal := make(chan error, 1)
	opts.OnFatal = func(err error) { fatal <- err }
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	b := appendBatches(t, s, 1, 0, 10)
	refuse.Store(true)
	if _, err := s.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	var waited time.Duration
	for failed := false; !failed; {
		select {
		case err := <-fatal:
			if !errors.Is(err, syscall.EACCES) {
				t.Errorf("failed with %v", err)
			}
			failed = true
		default:
			wantRead(t, s, 1, 0, 10, 1<<20, b)
			if n := tries.Load(); n > int64(opts.MaxTableFailures) {
				t.Fatalf("%d tries", n)
			}
			clk.Advance(10 * time.Millisecond)
			waited += 10 * time.Millisecond
		}
	}
	if waited < 700*time.Millisecond || tries.Load() != 4 {
		t.Errorf("%d tries in %v, want 4 in at least 100 + 200 + 400 ms", tries.Load(), waited)
	}
	if _, err := s.Apply(s.NewWrite()); !errors.Is(err, ErrFailed) {
		t.Errorf("write after the failure: %v", err)
	}
}

// TestCorruption damages the files that hold batches, here and there and all over their footers, and reads: the right bytes, or a
// marked corruption.
func TestCorruption(t *testing.T) {
	mem := vfs.NewMem()
	s := openTest(t, testOptions(mem))
	var want []record.Batch
	for i := range 20 {
		want = append(want, appendBatches(t, s, 1, base.Offset(i*10), 10)...)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := mem.List("hot")
	if err != nil {
		t.Fatal(err)
	}
	marked := map[string]int{}
	for _, name := range names {
		if !isTable(name) {
			continue
		}
		info, err := mem.Stat(mem.PathJoin("hot", name))
		if err != nil {
			t.Fatal(err)
		}
		size := int(info.Size())
		for pos := 0; pos < size; {
			if damagedRead(t, mem, name, pos, want) {
				marked[name[len(name)-4:]]++
			}
			if pos += 1009; pos >= size-80 {
				pos = max(pos-1009+7, size-80)
			}
		}
	}
	t.Logf("corruptions told: %v", marked)
	if marked[".sst"] == 0 || marked["blob"] == 0 {
		t.Errorf("corruptions told: %v; the test damaged nothing", marked)
	}
}

// damagedRead flips one bit of a copy of the store and reports whether that was told.
func damagedRead(t *testing.T, from *vfs.MemFS, name string, pos int, want []record.Batch) (told bool) {
	fs := vfs.NewMem()
	if _, err := vfs.Clone(from, fs, "hot", "hot"); err != nil {
		t.Fatal(err)
	}
	data, err := fs.UnsafeGetFileDataBuffer(fs.PathJoin("hot", name))
	if err != nil {
		t.Fatal(err)
	}
	data[pos] ^= 0x10
	opts := testOptions(fs)
	opts.OnCorruption = func(first, last base.LogID, err error) {
		if first > 1 || last < 1 || !base.IsCorruption(err) {
			t.Errorf("%s at %d: corruption of logs %s to %s: %v", name, pos, first, last, err)
		}
	}
	opts.OnFatal = func(err error) { t.Errorf("%s at %d: the store failed: %v", name, pos, err) }
	s, err := Open(opts)
	if err != nil {
		return true
	}
	defer s.Close()
	got, err := s.Read(1, 0, 200, 1<<30)
	if err != nil {
		if !base.IsCorruption(err) {
			t.Errorf("%s at %d: %v", name, pos, err)
		}
		return true
	}
	if len(got) != len(want) {
		t.Errorf("%s at %d: %d batches without an error", name, pos, len(got))
	}
	for i, b := range got {
		if string(b) != string(want[i]) {
			t.Errorf("%s at %d: batch %d differs without an error", name, pos, i)
		}
	}
	return false
}

// TestStoredBatchIsChecked puts rows under 'd' that Pebble's checksums find nothing wrong with.
func TestStoredBatchIsChecked(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	good := testBatch(10, 5, 100, 1)
	flip := func(pos int) []byte {
		b := append([]byte(nil), good...)
		b[pos] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		value   []byte
		crcOnly bool
	}{
		"empty":       {nil, false},
		"short":       {good[:60], false},
		"cut":         {good[:len(good)-1], false},
		"long":        {append(append([]byte(nil), good...), 0), false},
		"base offset": {flip(7), false},
		"length":      {flip(11), false},
		"magic":       {flip(16), false},
		"last delta":  {flip(26), false},
		"payload":     {flip(100), true},
	} {
		if err := s.db.Set(offsetKey(spaceData, 1, 14), c.value, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadVerified(1, 0, 100, 1<<20); !base.IsCorruption(err) {
			t.Errorf("%s: verified read says %v", name, err)
		}
		if _, err := s.Read(1, 0, 100, 1<<20); base.IsCorruption(err) == c.crcOnly {
			t.Errorf("%s: read says %v", name, err)
		}
	}
	for space, key := range map[byte][]byte{'m': logKey(spaceMeta, 1), 's': offsetKey(spaceSealed, 1, 3), 'i': offsetKey(spaceIndex, 1, 3)} {
		if err := s.db.Set(key, []byte{9, 9}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Logs(); !base.IsCorruption(err) {
			t.Errorf("a bad row in %c: %v", space, err)
		}
		if err := s.db.Delete(key, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCloseOnFullDisk: Close does not wait for space that may never come, and nothing confirmed is lost.
func TestCloseOnFullDisk(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var full atomic.Bool
	fs, _ := writeOps(crashfs.Wrap(mem), func(_ int64, op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	reports := make(chan bool, 4)
	opts := testOptions(fs)
	opts.OnDiskFull = func(full bool) { reports <- full }
	opts.DiskFullRetryInterval = time.Millisecond
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	b := appendBatches(t, s, 1, 0, 10)
	full.Store(true)
	w := s.NewWrite()
	w.Append(1, testBatch(10, 10, 1000, 1))
	c, err := s.Apply(w)
	if err != nil {
		t.Fatal(err)
	}
	<-reports
	if err := s.Close(); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("Close: %v", err)
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	full.Store(false)
	if err := c.Wait(); err != nil { // it goes on where the process does
		t.Error(err)
	}
	again := openTest(t, testOptions(crashed))
	wantRead(t, again, 1, 0, 10, 1<<20, b)
}

func TestMisuseIsRefused(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	w := s.NewWrite()
	w.SetMeta(1, &Meta{End: 5})
	w.SetSealed(1, &Sealed{Base: 5, End: 5})
	if _, err := s.Apply(w); err == nil {
		t.Error("an empty sealed range was applied")
	}
	if logs, err := s.Logs(); err != nil || len(logs) != 0 {
		t.Errorf("part of a refused write is there: %+v, %v", logs, err)
	}
	w = s.NewWrite()
	w.SetMeta(1, &Meta{End: 5})
	w.Discard()
	commit(t, s, s.NewWrite()) // an empty write is allowed
	if logs, err := s.Logs(); err != nil || len(logs) != 0 {
		t.Errorf("a discarded write is there: %+v, %v", logs, err)
	}
}

// TestSmallDisk fills a real file system, the directory VARVE_SMALL_DISK of 128 MB to 1 GB, which may hold nothing else: for instance
//
//	truncate -s 160M disk && mkfs.ext4 -q disk && mount disk dir
//
// It writes until the disk is full, frees a ballast file, and writes on.
func TestSmallDisk(t *testing.T) {
	dir := os.Getenv("VARVE_SMALL_DISK")
	if dir == "" {
		t.Skip("VARVE_SMALL_DISK is not set")
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 48<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	reports := make(chan bool, 16)
	opts := Options{Dir: filepath.Join(dir, "hot"), Logger: quiet, MemTableBytes: 4 << 20, ReserveBytes: 1}
	opts.OnDiskFull = func(full bool) { reports <- full }
	s := openTest(t, opts)
	var end, limit atomic.Int64
	limit.Store(1 << 40)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for n := int64(0); n < limit.Load(); n++ {
			w := s.NewWrite()
			w.Append(1, testBatch(base.Offset(n), 1, 64<<10, 1))
			c, err := s.Apply(w)
			if err == nil {
				err = c.Wait()
			}
			if err != nil {
				t.Errorf("batch %d: %v", n, err)
				return
			}
			end.Store(n + 1)
		}
	}()
	for full := false; !full; {
		select {
		case full = <-reports:
		case <-wrote:
			t.FailNow()
		}
	}
	atFull := end.Load()
	limit.Store(atFull + 16)
	if got, err := s.ReadVerified(1, 0, base.Offset(atFull), 1<<30); err != nil || int64(len(got)) != atFull {
		t.Errorf("%d batches of %d while full, %v", len(got), atFull, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	<-wrote
	if err := s.TrimAll([]Trim{{Log: 1, From: 0, To: 10}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("full after %d batches, went on to %d", atFull, end.Load())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openTest(t, opts)
	got, err := again.ReadVerified(1, 10, base.Offset(end.Load()), 1<<30)
	if err != nil || int64(len(got)) != end.Load()-10 {
		t.Errorf("%d batches of %d after the restart, %v", len(got), end.Load()-10, err)
	}
}
