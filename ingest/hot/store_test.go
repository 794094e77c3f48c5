package hot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// testBatch makes a batch of count records that starts at first: a true header with its CRC over bytes that are no records,
// which the store never looks at.
func testBatch(first base.Offset, count, payloadBytes int, seed uint64) record.Batch {
	b := make(record.Batch, record.HeaderSize+payloadBytes)
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	binary.BigEndian.PutUint64(key[8:], uint64(first))
	_, _ = rand.NewChaCha8(key).Read(b[record.HeaderSize:])
	binary.BigEndian.PutUint64(b[0:], uint64(first))
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func testOptions(fs vfs.FS) Options {
	return Options{Dir: "hot", FS: fs, Logger: quiet, MemTableBytes: 512 << 10, CacheBytes: 1 << 20, ReserveBytes: 1, DiskSlowAfter: -1}
}

// openTest opens a store and closes it at the end of the test, unless the test did.
func openTest(t testing.TB, opts Options) *Store {
	t.Helper()
	if opts.OnFatal == nil {
		opts.OnFatal = func(err error) { t.Errorf("the store failed: %v", err) }
	}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

// commit applies a write and waits for it.
func commit(t testing.TB, s *Store, w *Write) {
	t.Helper()
	c, err := s.Apply(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

// appendBatches commits batches of one record count each, from offset first, one write per batch, and returns them.
func appendBatches(t testing.TB, s *Store, log base.LogID, first base.Offset, counts ...int) []record.Batch {
	t.Helper()
	var out []record.Batch
	for _, n := range counts {
		b := testBatch(first, n, 100*n, uint64(log))
		w := s.NewWrite()
		w.Append(log, b)
		commit(t, s, w)
		out = append(out, b)
		first += base.Offset(n)
	}
	return out
}

// wantRead checks that a read returns exactly these batches.
func wantRead(t testing.TB, s *Store, log base.LogID, from, upTo base.Offset, maxBytes int, want []record.Batch) {
	t.Helper()
	got, err := s.Read(log, from, upTo, maxBytes)
	if err != nil {
		t.Fatalf("read log %s [%d,%d): %v", log, from, upTo, err)
	}
	if len(got) != len(want) {
		t.Fatalf("read log %s [%d,%d) max %d: %d batches, want %d", log, from, upTo, maxBytes, len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("read log %s [%d,%d): batch %d differs", log, from, upTo, i)
		}
	}
}

func TestReadBounds(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	appendBatches(t, s, 6, 0, 10)
	b := appendBatches(t, s, 7, 0, 10, 5, 1, 20) // [0,10) [10,15) [15,16) [16,36)
	appendBatches(t, s, 8, 0, 10)
	const all = 1 << 30
	for _, c := range []struct {
		from, upTo base.Offset
		maxBytes   int
		want       []record.Batch
	}{
		{0, 36, all, b},
		{-1, 36, all, b},
		{9, 36, all, b},
		{10, 36, all, b[1:]},
		{14, 36, all, b[1:]},
		{15, 36, all, b[2:]},
		{35, 36, all, b[3:]},
		{36, 36, all, nil},
		{36, 100, all, nil},
		{0, 35, all, b[:3]},
		{0, 16, all, b[:3]},
		{0, 15, all, b[:2]},
		{0, 10, all, b[:1]},
		{0, 9, all, nil},
		{0, 0, all, nil},
		{12, 3, all, nil},
		{0, 36, 0, b[:1]},
		{0, 36, len(b[0]), b[:1]},
		{0, 36, len(b[0]) + len(b[1]) - 1, b[:1]},
		{0, 36, len(b[0]) + len(b[1]), b[:2]},
		{20, 36, 1, b[3:]},
	} {
		wantRead(t, s, 7, c.from, c.upTo, c.maxBytes, c.want)
	}
	wantRead(t, s, 9, 0, 100, all, nil)
}

func TestReadOneAllocation(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	appendBatches(t, s, 1, 0, 3, 3, 3)
	got, err := s.Read(1, 0, 9, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(got); i++ {
		// The capacity ends with the batch, so that an append to it cannot reach the next one.
		if cap(got[i-1]) != len(got[i-1]) {
			t.Errorf("batch %d has capacity %d, length %d", i-1, cap(got[i-1]), len(got[i-1]))
		}
	}
}

func TestTruncateThenAppendInOneWrite(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	b := appendBatches(t, s, 1, 0, 10, 10, 10)
	w := s.NewWrite()
	w.SetIndex(1, IndexEntry{Offset: 10})
	w.SetIndex(1, IndexEntry{Offset: 20})
	w.SetSealed(1, &Sealed{Base: 0, End: 10})
	w.SetSealed(1, &Sealed{Base: 10, End: 20})
	commit(t, s, w)
	other := testBatch(10, 7, 50, 99)
	w = s.NewWrite()
	w.Truncate(1, 10, 30)
	w.Append(1, other)
	commit(t, s, w)
	wantRead(t, s, 1, 0, 100, 1<<20, []record.Batch{b[0], other})
	logs, err := s.Logs()
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 1 || logs[0].End != 17 || len(logs[0].Index) != 0 || len(logs[0].Sealed) != 1 {
		t.Fatalf("logs after truncation: %+v", logs)
	}
	// In the middle of a batch: the whole batch goes.
	w = s.NewWrite()
	w.Truncate(1, 5, 17)
	commit(t, s, w)
	wantRead(t, s, 1, 0, 100, 1<<20, nil)
}

func TestTrimAndDrop(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, testOptions(fs))
	b1, b2 := appendBatches(t, s, 1, 0, 10, 10, 10), appendBatches(t, s, 2, 0, 10, 10, 10)
	b3 := appendBatches(t, s, 3, 0, 10)
	w := s.NewWrite()
	for log := base.LogID(1); log <= 2; log++ {
		for off := base.Offset(0); off < 30; off += 10 {
			w.SetIndex(log, IndexEntry{Offset: off, Bytes: int64(off), MaxTimestamp: 5})
			w.SetSealed(log, &Sealed{Base: off, End: off + 10, Bytes: 3, Producers: []byte("p")})
		}
		w.SetMeta(log, &Meta{End: 30})
	}
	commit(t, s, w)
	meta := &Meta{HotStart: 20, End: 30, HighWater: 30, Epochs: []base.EpochStart{{Epoch: 3, Start: 0}}, Producers: []byte{1, 2}}
	if err := s.TrimAll([]Trim{{Log: 1, From: 0, To: 20, Meta: meta}, {Log: 2, From: 0, To: 15}}); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		wantRead(t, s, 1, 0, 100, 1<<20, b1[2:])
		wantRead(t, s, 2, 0, 100, 1<<20, b2[1:]) // the batch that reaches 15 is kept whole
		wantRead(t, s, 3, 0, 100, 1<<20, b3)
		logs, err := s.Logs()
		if err != nil {
			t.Fatal(err)
		}
		if len(logs) != 3 || logs[0].Meta.HotStart != 20 || logs[0].Meta.Epochs[0].Epoch != 3 || logs[0].End != 30 {
			t.Fatalf("logs: %+v", logs)
		}
		if len(logs[0].Index) != 1 || logs[0].Index[0] != (IndexEntry{Offset: 20, Bytes: 20, MaxTimestamp: 5}) || len(logs[0].Sealed) != 1 ||
			logs[0].Sealed[0].Base != 20 || logs[0].Sealed[0].End != 30 || string(logs[0].Sealed[0].Producers) != "p" {
			t.Fatalf("rows of log 1: %+v", logs[0])
		}
	}
	check()
	if err := s.Reclaim(); err != nil {
		t.Fatal(err)
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, testOptions(fs))
	check()
	if err := s.Drop([]base.LogID{2, 9, 1, 2}); err != nil {
		t.Fatal(err)
	}
	wantRead(t, s, 1, 0, 100, 1<<20, nil)
	wantRead(t, s, 3, 0, 100, 1<<20, b3)
	logs, err := s.Logs()
	if err != nil || len(logs) != 1 || logs[0].ID != 3 || logs[0].End != 10 {
		t.Fatalf("logs after drop: %+v, %v", logs, err)
	}
}

func TestLogsFindsLogsWithoutMeta(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	for _, log := range []base.LogID{1, 5, 1 << 63, ^base.LogID(0)} {
		appendBatches(t, s, log, 0, 4, 4)
	}
	w := s.NewWrite()
	for _, log := range []base.LogID{3, 5, 7} {
		w.SetMeta(log, &Meta{End: 6})
	}
	w.SetIndex(4, IndexEntry{Offset: 1}) // belongs to no log
	commit(t, s, w)
	logs, err := s.Logs()
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		id  base.LogID
		end base.Offset
	}{{1, 8}, {3, 6}, {5, 8}, {7, 6}, {1 << 63, 8}, {^base.LogID(0), 8}}
	if len(logs) != len(want) {
		t.Fatalf("%d logs: %+v", len(logs), logs)
	}
	for i, w := range want {
		if logs[i].ID != w.id || logs[i].End != w.end {
			t.Errorf("log %d is %s ending at %d, want %s at %d", i, logs[i].ID, logs[i].End, w.id, w.end)
		}
	}
}

func TestClosed(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	w := s.NewWrite()
	w.Append(1, testBatch(0, 1, 10, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, applyErr := s.Apply(w)
	_, readErr := s.Read(1, 0, 1, 1)
	_, logsErr := s.Logs()
	for i, err := range []error{applyErr, readErr, logsErr, s.Reclaim(), s.Drop([]base.LogID{1}), s.TrimAll([]Trim{{Log: 1, To: 1}}), s.Close()} {
		if !errors.Is(err, ErrClosed) || !errors.Is(err, kerr.KafkaStorageError) {
			t.Errorf("call %d after Close: %v", i, err)
		}
	}
	if s.DiskUsage() != 0 {
		t.Error("usage of a closed store")
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	opts := testOptions(nil)
	opts.Dir = t.TempDir()
	s := openTest(t, opts)
	appendBatches(t, s, 1, 0, 1)
	if second, err := Open(opts); err == nil {
		_ = second.Close()
		t.Fatal("a second Open of the same directory succeeded")
	}
}

// TestLargeWrite commits more than half a memtable at once, which Pebble handles apart (it becomes a memtable of its own).
func TestLargeWrite(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := openTest(t, testOptions(mem))
	var want []record.Batch
	w := s.NewWrite()
	for i := range 20 {
		b := testBatch(base.Offset(i), 1, 100_000, 1)
		want = append(want, b)
		w.Append(1, b)
	}
	commit(t, s, w)
	wantRead(t, s, 1, 0, 20, 1<<30, want)
	want = append(want, appendBatches(t, s, 1, 20, 5)...)
	wantRead(t, s, 1, 0, 100, 1<<30, want)
	again := openTest(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
	wantRead(t, again, 1, 0, 100, 1<<30, want)
}

// TestWaitTwice: a Commit answers everyone who asks, also after Close.
func TestWaitTwice(t *testing.T) {
	s := openTest(t, testOptions(vfs.NewMem()))
	w := s.NewWrite()
	w.Append(1, testBatch(0, 1, 10, 1))
	c, err := s.Apply(w)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w = s.NewWrite()
	w.Append(1, testBatch(1, 1, 10, 1))
	late, err := s.Apply(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(late.Wait(), c.Wait()); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	reader := sdk.NewManualReader()
	opts := testOptions(vfs.NewMem())
	opts.Meter = sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")
	s := openTest(t, opts)
	appendBatches(t, s, 1, 0, 10, 10, 10)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(1, 0, 30, 1<<20); err != nil {
		t.Fatal(err)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	values := map[string]int64{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range d.DataPoints {
				part, _ := p.Attributes.Value("part")
				values[m.Name+part.AsString()] = p.Value
			}
		case metricdata.Gauge[int64]:
			values[m.Name] = d.DataPoints[0].Value
		case metricdata.Histogram[float64]:
			values[m.Name] = int64(d.DataPoints[0].Count)
		}
	}
	const input = 3 * (1000 + record.HeaderSize)
	for name, want := range map[string]int64{"varve_hot_input": input, "varve_hot_read": input, "varve_hot_commits": 3, "varve_hot_full": 0,
		"varve_hot_memtable_limit": opts.MemTableBytes} {
		if v, ok := values[name]; !ok || v != want {
			t.Errorf("%s is %d, want %d", name, v, want)
		}
	}
	for _, name := range []string{"varve_hot_writtenwal", "varve_hot_writtenflush"} {
		if v := values[name]; v < input || v > 2*input {
			t.Errorf("%s is %d for %d bytes", name, v, input)
		}
	}
	for _, name := range []string{"varve_hot_sync_duration", "varve_hot_disk_usage", "varve_hot_memtable"} {
		if values[name] <= 0 {
			t.Errorf("%s is %d", name, values[name])
		}
	}
	if v, ok := values["varve_hot_writtencompaction"]; !ok || v != 0 {
		t.Errorf("compaction wrote %d", v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Errorf("collect after Close: %v", err)
	}
}
