package hot

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/base"
)

// cpuSeconds is the CPU time of the process so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func benchOptions(b *testing.B) Options {
	return Options{Dir: b.TempDir(), Logger: quiet, ReserveBytes: 1}
}

// BenchmarkAppend commits from goroutines to as many logs, synced, and trims each log to its share of the window, all logs in
// one write now and then. It reports bytes written per byte with its parts, and CPU seconds per GB (1e9 bytes).
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		logs, batchBytes int
		windowBytes      int64
	}{{16, 64 << 10, 30 << 20}, {16, 64 << 10, 1 << 40}, {16, 1 << 10, 30 << 20}, {64, 1 << 10, 30 << 20}} {
		b.Run(fmt.Sprintf("logs=%d/batch=%dKB/window=%dMB", c.logs, c.batchBytes>>10, c.windowBytes>>20), func(b *testing.B) {
			s := openTest(b, benchOptions(b))
			keep := max(1, c.windowBytes/int64(c.batchBytes*c.logs))
			ends, starts := make([]atomic.Int64, c.logs), make([]int64, c.logs)
			trim := func() {
				var trims []Trim
				for i := range ends {
					if to := ends[i].Load() - keep; to > starts[i] {
						trims = append(trims, Trim{Log: base.LogID(i + 1), From: base.Offset(starts[i]), To: base.Offset(to), Meta: &Meta{HotStart: base.Offset(to)}})
						starts[i] = to
					}
				}
				if err := s.TrimAll(trims); err != nil {
					b.Error(err)
				}
			}
			b.SetBytes(int64(c.batchBytes))
			var next, trimAt atomic.Int64
			trimEvery := max(1, keep*int64(c.logs)/4)
			trimAt.Store(trimEvery)
			cpu := cpuSeconds()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range c.logs {
				wg.Go(func() {
					batch := testBatch(0, 1, c.batchBytes-61, uint64(i))
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						batch.SetBaseOffset(base.Offset(ends[i].Load()))
						w := s.NewWriteSize(len(batch))
						w.Append(base.LogID(i+1), batch)
						c, err := s.Apply(w)
						if err == nil {
							err = c.Wait()
						}
						if err != nil {
							b.Error(err)
							return
						}
						ends[i].Add(1)
						if at := trimAt.Load(); n == at {
							trim()
							trimAt.Store(at + trimEvery)
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			m := s.Metrics()
			in := float64(m.InputBytes)
			b.ReportMetric((cpuSeconds()-cpu)/in*1e9, "cpu-s/GB")
			b.ReportMetric(m.WrittenPerByte(), "written/byte")
			b.ReportMetric(float64(m.WALBytes)/in, "wal/byte")
			b.ReportMetric(float64(m.FlushedBytes)/in, "flush/byte")
			b.ReportMetric(float64(m.CompactedBytes)/in, "compact/byte")
			b.ReportMetric(float64(m.Commits)/float64(max(m.Syncs, 1)), "commits/sync")
		})
	}
}

// BenchmarkLogs loads 10,000 logs: batches, a checkpoint, an index entry each, as a clean stop leaves them on the disk.
func BenchmarkLogs(b *testing.B) {
	opts := benchOptions(b)
	s := openTest(b, opts)
	const logs = 10_000
	for log := base.LogID(1); log <= logs; log += 100 {
		w := s.NewWrite()
		for id := log; id < log+100; id++ {
			for first := base.Offset(0); first < 8; first++ {
				w.Append(id, testBatch(first, 1, 4<<10, uint64(id)))
			}
			w.SetMeta(id, &Meta{End: 8, Epochs: []base.EpochStart{{Epoch: 1}}, Producers: make([]byte, 100)})
			w.SetIndex(id, IndexEntry{Offset: 4})
		}
		if err := s.ApplyNoSync(w); err != nil {
			b.Fatal(err)
		}
	}
	load := func(b *testing.B) {
		for b.Loop() {
			got, err := s.Logs()
			if err != nil || len(got) != logs || got[logs-1].End != 8 {
				b.Fatalf("%d logs, %v", len(got), err)
			}
		}
	}
	b.Run("memtable", load)
	outer := b
	b.Run("reopen", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			s = openTest(outer, opts)
			got, err := s.Logs()
			if err != nil || len(got) != logs {
				b.Fatalf("%d logs, %v", len(got), err)
			}
		}
	})
	b.Run("files", load)
}

// BenchmarkRead fetches 1 MiB, from the memtable and from the files.
func BenchmarkRead(b *testing.B) {
	for _, batchBytes := range []int{1 << 10, 64 << 10} {
		s := openTest(b, benchOptions(b))
		const total = 64 << 20
		n := total / batchBytes
		for i := 0; i < n; i += 16 {
			w := s.NewWriteSize(16 * batchBytes)
			for j := i; j < i+16; j++ {
				w.Append(1, testBatch(base.Offset(j), 1, batchBytes-61, 1))
			}
			if err := s.ApplyNoSync(w); err != nil {
				b.Fatal(err)
			}
		}
		read := func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(1 << 20)
			from := 0
			for b.Loop() {
				got, err := s.Read(1, base.Offset(from), base.Offset(n), 1<<20)
				if err != nil || len(got) == 0 {
					b.Fatalf("%d batches, %v", len(got), err)
				}
				if from += len(got); from+len(got) > n {
					from = 0
				}
			}
		}
		b.Run(fmt.Sprintf("memtable/batch=%dKB", batchBytes>>10), read)
		if err := s.db.Flush(); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("files/batch=%dKB", batchBytes>>10), read)
	}
}

// BenchmarkRecovery opens what kill -9 leaves at the worst moment: a log with a full memtable of 64 KiB batches.
func BenchmarkRecovery(b *testing.B) {
	opts := benchOptions(b)
	opts.EnsureDefaults()
	s := openTest(b, opts)
	fill := opts.MemTableBytes - 4<<20
	for n := int64(0); s.Metrics().InputBytes < 2*opts.MemTableBytes+fill; n++ { // past the small memtables of a start
		w := s.NewWriteSize(1 << 20)
		for i := range base.Offset(16) {
			w.Append(base.LogID(i+1), testBatch(base.Offset(n), 1, 64<<10-61, 1))
		}
		commit(b, s, w)
	}
	for busy := true; busy; { // the copies below are taken of a store at rest
		m := s.db.Metrics()
		busy = m.Flush.NumInProgress+m.Compact.NumInProgress > 0 || m.MemTable.Count > 1
		runtime.Gosched()
	}
	var walBytes int64
	for b.Loop() {
		b.StopTimer()
		crashed := opts
		crashed.Dir = b.TempDir()
		if _, err := vfs.Clone(vfs.Default, vfs.Default, opts.Dir, crashed.Dir); err != nil {
			b.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(crashed.Dir, "*.log"))
		if err != nil {
			b.Fatal(err)
		}
		walBytes = 0
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				walBytes += info.Size()
			}
		}
		b.StartTimer()
		again, err := Open(crashed)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := again.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(walBytes)/1e6, "MB-of-log")
}
