package hot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/crashfs"
)

// logState is what a workload was promised of one log. Batches are a function of their offset (testBatch), so the offsets
// say all.
type logState struct {
	acked   base.Offset // log end confirmed by Commit.Wait
	trimmed base.Offset // hot start of the last trim that a confirmed write came after
	trimReq base.Offset // hot start of the last trim that was asked for
}

// workload appends to logs 1 to 3 and trims them, and keeps the book of what was promised.
type workload struct {
	s  *Store
	mu struct {
		sync.Mutex
		logs map[base.LogID]logState
	}
}

const workloadLogs, workloadBatch = 3, 5 // logs, records per batch

func newWorkload(s *Store) *workload {
	w := &workload{s: s}
	w.mu.logs = map[base.LogID]logState{}
	return w
}

func (w *workload) promised() map[base.LogID]logState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.mu.logs)
}

func (w *workload) update(fn func(map[base.LogID]logState)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(w.mu.logs)
}

// round appends one batch to every log in one write, with an index entry each, and waits for it.
func (w *workload) round(n int) error {
	first := base.Offset(n * workloadBatch)
	wr := w.s.NewWrite()
	before := w.promised()
	for log := base.LogID(1); log <= workloadLogs; log++ {
		wr.Append(log, testBatch(first, workloadBatch, 3000*int(log), uint64(log)))
		wr.SetIndex(log, IndexEntry{Offset: first, Bytes: int64(n)})
	}
	c, err := w.s.Apply(wr)
	if err != nil {
		return err
	}
	if err := c.Wait(); err != nil {
		return err
	}
	w.update(func(logs map[base.LogID]logState) {
		for log := base.LogID(1); log <= workloadLogs; log++ {
			// What was asked for before this write was confirmed with it.
			logs[log] = logState{acked: first + workloadBatch, trimmed: before[log].trimReq, trimReq: logs[log].trimReq}
		}
	})
	return nil
}

// trim drops all but the last keep batches of every log.
func (w *workload) trim(n, keep int) error {
	to := base.Offset((n - keep) * workloadBatch)
	if to <= 0 {
		return nil
	}
	var trims []Trim
	for log, l := range w.promised() {
		trims = append(trims, Trim{Log: log, From: l.trimReq, To: to, Meta: &Meta{HotStart: to, HighWater: l.acked, End: l.acked}})
	}
	w.update(func(logs map[base.LogID]logState) {
		for log, l := range logs {
			l.trimReq = to
			logs[log] = l
		}
	})
	return w.s.TrimAll(trims)
}

func (w *workload) run(from, to int) error {
	for n := from; n < to; n++ {
		if err := w.round(n); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		if n%4 == 3 {
			if err := w.trim(n, 6); err != nil {
				return fmt.Errorf("trim after round %d: %w", n, err)
			}
		}
		if n%16 == 15 {
			if err := w.s.Reclaim(); err != nil {
				return fmt.Errorf("reclaim after round %d: %w", n, err)
			}
		}
	}
	return nil
}

// verify checks a recovered store against a promise: everything confirmed is there, dense and byte-equal; nothing is there below a
// trim that a confirmed write came after; the rows agree with the batches.
func verify(s *Store, promise map[base.LogID]logState) error {
	logs, err := s.Logs()
	if err != nil {
		return err
	}
	found := map[base.LogID]Log{}
	for _, l := range logs {
		found[l.ID] = l
	}
	for log, p := range promise {
		if err := verifyLog(s, log, p, found[log]); err != nil {
			return fmt.Errorf("log %s: %w", log, err)
		}
	}
	return nil
}

func verifyLog(s *Store, log base.LogID, p logState, l Log) error {
	if p.acked > 0 && l.End < p.acked {
		return fmt.Errorf("ends at %d, %d was confirmed", l.End, p.acked)
	}
	batches, err := s.ReadVerified(log, 0, l.End, 1<<30)
	if err != nil {
		return err
	}
	next := base.NoOffset
	for _, b := range batches {
		switch first := b.BaseOffset(); {
		case next == base.NoOffset && (first < p.trimmed || first > p.trimReq):
			return fmt.Errorf("starts at %d, trims were %d (durable) and %d", first, p.trimmed, p.trimReq)
		case next != base.NoOffset && first != next:
			return fmt.Errorf("hole: %d follows %d", first, next)
		case !bytes.Equal(b, testBatch(first, workloadBatch, 3000*int(log), uint64(log))):
			return fmt.Errorf("batch at %d differs", first)
		}
		next = b.NextOffset()
	}
	if next != base.NoOffset && next != l.End {
		return fmt.Errorf("ends at %d, Logs says %d", next, l.End)
	}
	if len(l.Index) != len(batches) {
		return fmt.Errorf("%d index entries for %d batches", len(l.Index), len(batches))
	}
	for i, e := range l.Index {
		if e.Offset != batches[i].BaseOffset() || e.Bytes != int64(e.Offset)/workloadBatch {
			return fmt.Errorf("index entry %d is %+v", i, e)
		}
	}
	if len(batches) > 0 && l.Meta.HotStart != batches[0].BaseOffset() {
		return fmt.Errorf("hot start is %d, the first batch %d: a trim and its row came apart", l.Meta.HotStart, batches[0].BaseOffset())
	}
	return nil
}

// writeOps counts the writing operations of a disk and calls at before each of them.
func writeOps(fs vfs.FS, at func(n int64, op errorfs.Op) error) (vfs.FS, *atomic.Int64) {
	var count atomic.Int64
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFilePreallocate || op.Kind == errorfs.OpLock {
			return nil
		}
		return at(count.Add(1), op)
	})), &count
}

// crashPoint is a disk as a power cut leaves it, and what was promised then.
type crashPoint struct {
	n       int64
	op      errorfs.Op
	unsync  int
	fs      *vfs.MemFS
	promise map[base.LogID]logState
}

// TestCrashAtEveryOperation cuts the power before every single writing operation of a workload with flushes, compactions, trims
// and log rotation, with none, half and all of what was not synced on the disk, and opens what is left.
func TestCrashAtEveryOperation(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var (
		w      = newWorkload(nil)
		mu     sync.Mutex
		points []crashPoint
		rng    = rand.New(rand.NewPCG(1, 2))
	)
	fs, ops := writeOps(crashfs.Wrap(mem), func(n int64, op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		for _, unsync := range []int{0, 50, 100} {
			promise := w.promised()
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsync, RNG: rng})
			// What is confirmed while the clone is made need not be in it; a trim that is asked for meanwhile may be.
			for log, later := range w.promised() {
				p := promise[log]
				p.trimReq = later.trimReq
				promise[log] = p
			}
			points = append(points, crashPoint{n: n, op: op, unsync: unsync, fs: clone, promise: promise})
		}
		return nil
	})
	opts := testOptions(fs)
	opts.MemTableBytes = 256 << 10
	half := 24
	if testing.Short() {
		half = 18
	}
	for _, from := range []int{0, half} { // with a clean restart in the middle
		s := openTest(t, opts)
		w.s = s
		if err := w.run(from, from+half); err != nil {
			t.Fatal(err)
		}
		if s.Metrics().FlushedBytes == 0 {
			t.Fatal("the workload never flushed: it does not test what it should")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d operations, %d crash points", ops.Load(), len(points))
	for _, p := range points {
		if err := reopen(p); err != nil {
			t.Fatalf("crash before operation %d (%v %s), %d%% of the unsynced data kept: %v", p.n, p.op.Kind, p.op.Path, p.unsync, err)
		}
	}
}

// reopen recovers a crash point, verifies it, writes to it, and verifies it after a clean restart.
func reopen(p crashPoint) error {
	opts := testOptions(p.fs)
	opts.OnFatal = func(error) {}
	for range 2 {
		s, err := Open(opts)
		if err != nil {
			return err
		}
		if err := errors.Join(verify(s, p.promise), s.Close()); err != nil {
			return err
		}
	}
	return nil
}

// TestDiskFullAtEveryOperation makes the disk full at the n-th writing operation, for every n until the workload gets through without
// meeting it. Nothing fails, Full says so, reads go on, and the workload ends by itself when there is room again.
func TestDiskFullAtEveryOperation(t *testing.T) {
	for n := int64(1); ; n++ {
		if met := diskFullAt(t, n); !met {
			t.Logf("%d operations", n-1)
			return
		}
		if testing.Short() && n > 20 {
			n += 7
		}
	}
}

func diskFullAt(t *testing.T, n int64) (met bool) {
	mem := vfs.NewCrashableMem()
	var armed, full atomic.Bool
	var count atomic.Int64
	fs, _ := writeOps(crashfs.Wrap(mem), func(_ int64, op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileClose, errorfs.OpRemove, errorfs.OpRemoveAll:
			return nil // a full disk fails what needs room
		}
		if armed.Load() && count.Add(1) == n {
			full.Store(true)
		}
		if full.Load() {
			return syscall.ENOSPC
		}
		return nil
	})
	reports := make(chan bool, 16)
	opts := testOptions(fs)
	opts.MemTableBytes = 256 << 10
	opts.DiskFullRetryInterval = time.Millisecond
	opts.OnDiskFull = func(full bool) { reports <- full }
	s := openTest(t, opts)
	armed.Store(true)
	w, done := newWorkload(s), make(chan error, 1)
	go func() { done <- w.run(0, 24) }()
	var err error
	select {
	case <-reports:
		met = true
		if !s.Full() {
			t.Errorf("operation %d: not full", n)
		}
		if _, rerr := s.Read(1, 0, w.promised()[1].acked, 1<<20); rerr != nil {
			t.Errorf("operation %d: read while full: %v", n, rerr)
		}
		full.Store(false)
		err = <-done
	case err = <-done:
		armed.Store(false)
		if met = count.Load() >= n; met { // it met a flush that nobody waited for
			<-reports
			full.Store(false)
		}
	}
	if met && <-reports {
		t.Errorf("operation %d: reported full twice", n)
	}
	err = errors.Join(err, verify(s, w.promised()), s.Close())
	if err == nil {
		err = reopen(crashPoint{fs: mem, promise: w.promised()})
	}
	if err != nil {
		t.Fatalf("disk full at operation %d: %v", n, err)
	}
	return met
}

// TestIOErrorAtEverySync fails the n-th sync, or log write, with EIO, for every n. The store must say so (OnFatal) and confirm nothing
// after it; what it confirmed before is on the disk.
func TestIOErrorAtEverySync(t *testing.T) {
	for n := int64(1); ; n++ {
		if met := ioErrorAt(t, n); !met {
			t.Logf("%d operations", n-1)
			return
		}
		if testing.Short() && n > 20 {
			n += 7
		}
	}
}

func ioErrorAt(t *testing.T, n int64) (met bool) {
	mem := vfs.NewCrashableMem()
	var armed atomic.Bool
	var count atomic.Int64
	fs, _ := writeOps(crashfs.Wrap(mem), func(_ int64, op errorfs.Op) error {
		final := isLog(op.Path) && op.Kind != errorfs.OpRemove && op.Kind != errorfs.OpFileClose
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			final = true
		}
		if final && armed.Load() && count.Add(1) == n {
			return syscall.EIO
		}
		return nil
	})
	fatal := make(chan error, 1)
	opts := testOptions(fs)
	opts.MemTableBytes = 256 << 10
	var atFailure map[base.LogID]logState
	var w *workload
	var disk *vfs.MemFS
	opts.OnFatal = func(err error) {
		atFailure = w.promised()
		disk = mem.CrashClone(vfs.CrashCloneCfg{})
		fatal <- err // once: a second call would block, and the test with it
	}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	w = newWorkload(s)
	armed.Store(true)
	done := make(chan error, 1)
	go func() { done <- w.run(0, 24) }()
	select {
	case err = <-done: // the workload may also hang in Pebble: in real life the process is gone
		if err == nil { // the failure may still come, in a flush
			armed.Store(false)
			if err = s.Close(); err == nil {
				return false
			}
		}
		<-fatal
	case err = <-fatal:
	}
	if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("operation %d: %v", n, err)
	}
	if _, err := s.Apply(s.NewWrite()); !errors.Is(err, ErrFailed) {
		t.Fatalf("operation %d: write after the failure: %v", n, err)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) && !errors.Is(err, ErrClosed) {
		t.Fatalf("operation %d: Close after the failure: %v", n, err)
	}
	if err := reopen(crashPoint{fs: disk, promise: atFailure}); err != nil {
		t.Fatalf("EIO at operation %d: %v", n, err)
	}
	return true
}
