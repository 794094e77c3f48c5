package hot

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// stats are the counters that the store keeps itself.
type stats struct {
	inputBytes, readBytes, commits                        atomic.Int64
	stalls, backgroundErrors, corruptions, slowOperations atomic.Int64
	syncs                                                 atomic.Int64
}

// Metrics is a picture of the store. Counters run from Open.
type Metrics struct {
	InputBytes      int64 // of record batches applied
	WALBytes        int64 // written to the log, with its own overhead
	FlushedBytes    int64 // written by memtable flushes
	CompactedBytes  int64 // written by compactions
	ReadBytes       int64 // of record batches read
	Commits         int64
	Syncs           int64 // of the log; Commits / Syncs is the size of a group commit
	MemTableBytes   int64 // allocated to memtables
	MemTables       int64
	CacheBytes      int64 // block cache in use
	DiskBytes       int64
	WriteStalls     int64
	BackgroundError int64
	Corruptions     int64
	SlowOperations  int64
	WaitingForSpace int64
	FreeBytes       uint64
	FreeKnown       bool
	Full            bool
}

// WrittenPerByte is the bytes written to the disk per byte of record batches; 0 before the first.
func (m *Metrics) WrittenPerByte() float64 {
	if m.InputBytes == 0 {
		return 0
	}
	return float64(m.WALBytes+m.FlushedBytes+m.CompactedBytes) / float64(m.InputBytes)
}

// Metrics returns a picture of the store; zero after Close and after a failure.
func (s *Store) Metrics() Metrics {
	if s.Failed() != nil || s.use() != nil {
		return Metrics{}
	}
	defer s.lifetime.exit()
	p := s.db.Metrics()
	flushed, compacted := tableBytes(p)
	return Metrics{
		InputBytes:      s.stats.inputBytes.Load(),
		WALBytes:        int64(p.WAL.BytesWritten),
		FlushedBytes:    flushed,
		CompactedBytes:  compacted,
		ReadBytes:       s.stats.readBytes.Load(),
		Commits:         s.stats.commits.Load(),
		Syncs:           s.stats.syncs.Load(),
		MemTableBytes:   int64(p.MemTable.Size),
		MemTables:       p.MemTable.Count,
		CacheBytes:      p.BlockCache.Size,
		DiskBytes:       int64(p.DiskSpaceUsage()),
		WriteStalls:     s.stats.stalls.Load(),
		BackgroundError: s.stats.backgroundErrors.Load(),
		Corruptions:     s.stats.corruptions.Load(),
		SlowOperations:  s.stats.slowOperations.Load(),
		WaitingForSpace: s.space.blocked.Load(),
		FreeBytes:       s.space.free.Load(),
		FreeKnown:       s.space.known.Load(),
		Full:            s.space.full.Load(),
	}
}

// tableBytes sums what flushes and compactions wrote. NB: Pebble's own Total adds the log to the flushes, and its
// BlobBytesCompacted counts flushes too.
func tableBytes(p *pebble.Metrics) (flushed, compacted int64) {
	for i := range p.Levels {
		l := &p.Levels[i]
		flushed += int64(l.TableBytesFlushed + l.BlobBytesFlushed)
		compacted += int64(l.TableBytesCompacted + l.BlobBytesCompacted - l.BlobBytesFlushed)
	}
	return flushed, compacted
}

// DiskUsage estimates the bytes that the store takes on disk, files that wait for their removal included; 0 after Close.
func (s *Store) DiskUsage() (bytes uint64) { return uint64(s.Metrics().DiskBytes) }

// instruments are the store's OTel instruments.
type instruments struct {
	stats        *stats
	syncDuration metric.Float64Histogram
	registration metric.Registration
	open         atomic.Bool // the callback may ask Pebble
}

// logSynced records one sync of the log.
func (m *instruments) logSynced(d time.Duration) {
	m.stats.syncs.Add(1)
	m.syncDuration.Record(context.Background(), d.Seconds())
}

// stop ends the callbacks. They may run one last time, which finds the store closed.
func (m *instruments) stop() {
	m.open.Store(false)
	_ = m.registration.Unregister() // it only fails where the provider is gone
}

// observation is one observable instrument and its value in a picture.
type observation struct {
	instrument metric.Int64Observable
	value      func(*Metrics) int64
	options    []metric.ObserveOption
}

func (s *Store) startMetrics() error {
	m := &instruments{stats: &s.stats}
	s.metrics = m
	var err error
	m.syncDuration, err = s.opts.Meter.Float64Histogram("varve_hot_sync_duration", metric.WithUnit("s"),
		metric.WithDescription("Time of one sync of the write-ahead log."),
		metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5))
	if err != nil {
		return err
	}
	obs, err := s.observations()
	if err != nil {
		return err
	}
	all := make([]metric.Observable, len(obs))
	for i, o := range obs {
		all[i] = o.instrument
	}
	m.registration, err = s.opts.Meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		if !m.open.Load() {
			return nil
		}
		now := s.Metrics()
		for _, o := range obs {
			to.ObserveInt64(o.instrument, o.value(&now), o.options...)
		}
		return nil
	}, all...)
	return err
}

// observations is the table of the observable instruments.
func (s *Store) observations() (obs []observation, err error) {
	counter := func(name, unit, text string) metric.Int64Observable {
		c, cerr := s.opts.Meter.Int64ObservableCounter("varve_hot_"+name, metric.WithUnit(unit), metric.WithDescription(text))
		err = firstOf(err, cerr)
		return c
	}
	gauge := func(name, unit, text string) metric.Int64Observable {
		g, gerr := s.opts.Meter.Int64ObservableGauge("varve_hot_"+name, metric.WithUnit(unit), metric.WithDescription(text))
		err = firstOf(err, gerr)
		return g
	}
	add := func(i metric.Int64Observable, v func(*Metrics) int64, attrs ...attribute.KeyValue) {
		obs = append(obs, observation{i, v, []metric.ObserveOption{metric.WithAttributes(attrs...)}})
	}
	written := counter("written", "By", "Bytes written to the disk. Their sum over varve_hot_input is the bytes written per byte.")
	add(written, func(m *Metrics) int64 { return m.WALBytes }, attribute.String("part", "wal"))
	add(written, func(m *Metrics) int64 { return m.FlushedBytes }, attribute.String("part", "flush"))
	add(written, func(m *Metrics) int64 { return m.CompactedBytes }, attribute.String("part", "compaction"))
	add(counter("input", "By", "Bytes of record batches applied."), func(m *Metrics) int64 { return m.InputBytes })
	add(counter("read", "By", "Bytes of record batches read."), func(m *Metrics) int64 { return m.ReadBytes })
	add(counter("commits", "{commit}", "Writes applied."), func(m *Metrics) int64 { return m.Commits })
	add(counter("write_stalls", "{stall}", "Times that Pebble made writers wait."), func(m *Metrics) int64 { return m.WriteStalls })
	add(counter("background_errors", "{error}", "Failed flushes and compactions."), func(m *Metrics) int64 { return m.BackgroundError })
	add(counter("corruptions", "{file}", "Damaged blocks met."), func(m *Metrics) int64 { return m.Corruptions })
	add(counter("disk_slow", "{operation}", "Disk operations slower than the limit."), func(m *Metrics) int64 { return m.SlowOperations })
	add(gauge("memtable", "By", "Bytes allocated to memtables."), func(m *Metrics) int64 { return m.MemTableBytes })
	add(gauge("memtable_limit", "By", "Size of one memtable."), func(*Metrics) int64 { return s.opts.MemTableBytes })
	add(gauge("block_cache", "By", "Bytes in the block cache."), func(m *Metrics) int64 { return m.CacheBytes })
	add(gauge("block_cache_limit", "By", "Bound of the block cache beyond memtables."), func(*Metrics) int64 { return s.opts.CacheBytes })
	add(gauge("disk_usage", "By", "Bytes of the store on disk."), func(m *Metrics) int64 { return m.DiskBytes })
	add(gauge("disk_free", "By", "Free bytes of the disk at the last look."), func(m *Metrics) int64 { return int64(m.FreeBytes) })
	add(gauge("disk_reserve", "By", "Free bytes below which produce is refused."), func(*Metrics) int64 { return int64(s.opts.ReserveBytes) })
	add(gauge("disk_waiting", "{operation}", "Disk operations that wait for space."), func(m *Metrics) int64 { return m.WaitingForSpace })
	add(gauge("full", "1", "1 where produce is refused for want of space."), func(m *Metrics) int64 {
		if m.Full {
			return 1
		}
		return 0
	})
	return obs, err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
