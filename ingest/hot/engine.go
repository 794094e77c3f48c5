package hot

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/base"
)

// openPebble opens Pebble with the settings that were measured for this use: random 64 KiB values, trimmed soon.
func (s *Store) openPebble() (*pebble.DB, error) {
	// Pebble takes the memtables out of the block cache's capacity (one in use, one kept for the next): without the addition a
	// 64 MiB cache beside 128 MiB memtables would hold nothing.
	cache := pebble.NewCache(s.opts.CacheBytes + 2*s.opts.MemTableBytes)
	defer cache.Unref() // the DB has its own reference
	s.cache = cache
	o := &pebble.Options{
		FS:     s.disk,
		Logger: pebbleLogger{s},
		Cache:  cache,
		// Pinned: ratchets are one-way, so a library upgrade must not raise it before a rollback is ruled out. Anything below
		// FormatWALSyncChunks takes a flipped bit in the middle of the log for its end, silently; below this one value
		// separation is silently off.
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                uint64(s.opts.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       12,
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		MaxOpenFiles:                8192,
		EventListener:               s.events(),
		// FlushDelayDeleteRange stays 0: it would force the flushes that a trim in the same memtable avoids.
	}
	if every := s.opts.LogSyncEvery; every > 0 {
		o.WALMinSyncInterval = func() time.Duration { return every }
	}
	// A flush makes a pair of files of about this size. With the default of 2 MiB 250 MB came to 50 to 90 pairs, each with its
	// syncs, and took 1.2 s or more; now they are 8 and take 0.5 to 0.8 s, and throughput is 15 % higher.
	o.TargetFileSizes[0] = 32 << 20
	for i := range o.Levels {
		o.Levels[i].BlockSize, o.Levels[i].IndexBlockSize = 32<<10, 256<<10
		// Batches come compressed by the client; Snappy costs twice the CPU and gains nothing.
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	separateValues(o)
	return pebble.Open(s.opts.Dir, o)
}

// separateValues keeps values of 1 KiB and more out of the tables, so that a compaction moves keys only (bytes written per byte
// 1.98 instead of 3.65, before trims). They are never rewritten: they live for seconds. The setting is experimental in
// Pebble 2.1; without it the store works the same, at 3.7 to 4.4.
func separateValues(o *pebble.Options) {
	p := pebble.ValueSeparationPolicy{
		Enabled: true, MinimumSize: 1024, MaxBlobReferenceDepth: 1000, RewriteMinimumAge: 5 * time.Second, TargetGarbageRatio: 1.0,
	}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy { return p }
}

// events is called by Pebble, partly with its locks held: nothing here blocks or calls Pebble.
//
// NB: FlushEnd is no sign of a failure. It carries an error ("empty table") also for the flush that we want most, of a memtable
// whose batches were all trimmed. The disk counts failures itself.
func (s *Store) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			s.stats.backgroundErrors.Add(1)
			s.log(slog.LevelError, "pebble background error", slog.Any("error", err))
		},
		DataCorruption: s.corrupted,
		DiskSlow:       s.diskSlow,
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			s.stats.stalls.Add(1)
			s.log(slog.LevelWarn, "pebble stalls writes", slog.String("reason", i.Reason))
		},
		WriteStallEnd: func() { s.log(slog.LevelInfo, "pebble writes go on") },
	}
}

// corrupted replaces Pebble's default, which ends the process: the damage concerns some logs, and those are taken out of
// service by whoever reads them (I14).
func (s *Store) corrupted(i pebble.DataCorruptionInfo) {
	s.stats.corruptions.Add(1)
	first, last := boundsLog(i.Bounds.Start, 0), boundsLog(i.Bounds.End.Key, math.MaxUint64)
	s.log(slog.LevelError, "hot store file is damaged", slog.String("path", i.Path), slog.String("first", first.String()), slog.String("last", last.String()), slog.Any("error", i.Details))
	s.opts.OnCorruption(first, last, base.MarkCorruption(fmt.Errorf("%s: %w", i.Path, i.Details)))
}

// boundsLog is the log of a key; unknown where the key is not ours.
func boundsLog(k []byte, unknown base.LogID) base.LogID {
	if len(k) < metaKeyLen {
		return unknown
	}
	return base.LogID(binary.BigEndian.Uint64(k[1:]))
}

func (s *Store) diskSlow(i vfs.DiskSlowInfo) {
	s.stats.slowOperations.Add(1)
	s.log(slog.LevelWarn, "disk is slow", slog.String("path", i.Path), slog.String("operation", i.OpType.String()), slog.Duration("duration", i.Duration))
}

func (s *Store) log(level slog.Level, msg string, attrs ...slog.Attr) {
	s.opts.Logger.LogAttrs(context.Background(), level, msg, attrs...)
}

// markCorruption gives Pebble's corruption errors our mark.
func markCorruption(err error) error {
	if err != nil && pebble.IsCorruptionError(err) && !base.IsCorruption(err) {
		return base.MarkCorruption(err)
	}
	return err
}

// pebbleLogger is Pebble's logger.
type pebbleLogger struct{ s *Store }

// Infof implements pebble.Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	if l.s.opts.Logger.Enabled(context.Background(), slog.LevelDebug) {
		l.s.log(slog.LevelDebug, "pebble", slog.String("text", fmt.Sprintf(format, args...)))
	}
}

// Errorf implements pebble.Logger.
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.log(slog.LevelError, "pebble", slog.String("text", fmt.Sprintf(format, args...)))
}

// Fatalf implements pebble.Logger. NB: it never returns. Pebble relies on that: a commit whose Fatalf returned reports success
// for a write that is not durable.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.disk.die(fmt.Errorf("pebble: "+format, args...))
}
