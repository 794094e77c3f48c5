package hot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
)

// Options configures a Store. The zero value of every field but Dir means its default.
type Options struct {
	// Dir is the directory of the store; it is created where it does not exist. Required.
	Dir string
	// FS is the disk. Default: the machine's.
	FS vfs.FS
	// Clock tells the time of polls and back-offs. Default: the machine's.
	Clock clock.Clock
	// Logger takes the store's events and Pebble's. Default: slog.Default().
	Logger *slog.Logger
	// Meter makes the varve_hot_* instruments. Default: none are kept.
	Meter metric.Meter

	// MemTableBytes is the size of a Pebble memtable; what is replayed after kill -9 is one to two of them, at most four. Make
	// it four times what waits for offload, and the values never reach a table. Resident memory is about 2 to 2.3 times it.
	// Default: 128 MiB.
	MemTableBytes int64
	// CacheBytes bounds Pebble's block cache, beyond the memtables. Default: 64 MiB.
	CacheBytes int64

	// LogSyncEvery is the least time between two syncs of the write-ahead log: what is applied meanwhile shares the next. A
	// simulation gives its syncs a duration with it, which the disk below must not: Pebble holds locks while a log is closed.
	// Default: none, each sync follows the one before.
	LogSyncEvery time.Duration

	// ReserveBytes is the free space at which Full becomes true. It is false again at an eighth more.
	// Default: 2 * MemTableBytes + 1 GiB, what Pebble may still need to write and to compact.
	ReserveBytes uint64
	// FreeSpace tells the free bytes of the disk. Default: asks FS about Dir. Where it fails, only ENOSPC makes the store full.
	FreeSpace func() (uint64, error)
	// SpacePollInterval is the time between two looks at FreeSpace. Default: 1 s.
	SpacePollInterval time.Duration
	// DiskFullRetryInterval is how long a disk operation that met ENOSPC waits before it is tried again. Default: 250 ms.
	DiskFullRetryInterval time.Duration
	// DiskSlowAfter is the duration of a disk operation that is logged and counted as slow. Negative: never. Default: 5 s.
	DiskSlowAfter time.Duration
	// MaxTableFailures is the number of table files in a row whose writing may fail (flushes and compactions) before the store gives
	// up. After each it waits 100 ms, doubling up to 5 s (Pebble itself would spin). A full disk is not a failure. Default: 20.
	MaxTableFailures int

	// OnFatal is called once, with the first failure that the store cannot survive (a failed sync, Pebble giving up). It may be
	// called with Pebble's locks held: it must not call the Store. Where it returns, the store refuses every write.
	// Default: logs and exits the process with status 1; the next start recovers.
	OnFatal func(err error)
	// OnDiskFull is called, from one goroutine, when Full changes. It must not call Close. Default: nothing but a log line.
	OnDiskFull func(full bool)
	// OnCorruption is called with a damaged file's range of logs, first and last inclusive. It must not block, and is called also
	// for damage met by a compaction, which no Read will report. Default: nothing but a log line.
	OnCorruption func(first, last base.LogID, err error)
}

// EnsureDefaults fills what is not set.
func (o *Options) EnsureDefaults() {
	setDefault(&o.FS, vfs.Default)
	setDefault(&o.Clock, clock.Clock(clock.Real{}))
	setDefault(&o.Logger, slog.Default())
	setDefault(&o.Meter, noop.NewMeterProvider().Meter("hot"))
	setDefault(&o.MemTableBytes, 128<<20)
	setDefault(&o.CacheBytes, 64<<20)
	setDefault(&o.ReserveBytes, 2*uint64(o.MemTableBytes)+1<<30)
	setDefault(&o.SpacePollInterval, time.Second)
	setDefault(&o.DiskFullRetryInterval, 250*time.Millisecond)
	setDefault(&o.DiskSlowAfter, 5*time.Second)
	setDefault(&o.MaxTableFailures, 20)
	if o.FreeSpace == nil {
		fs, dir := o.FS, o.Dir
		o.FreeSpace = func() (uint64, error) {
			u, err := fs.GetDiskUsage(dir)
			return u.AvailBytes, err
		}
	}
	if o.OnFatal == nil {
		logger := o.Logger
		o.OnFatal = func(err error) {
			logger.LogAttrs(context.Background(), slog.LevelError, "hot store failed, the process ends", slog.Any("error", err))
			os.Exit(1)
		}
	}
	if o.OnDiskFull == nil {
		o.OnDiskFull = func(bool) {}
	}
	if o.OnCorruption == nil {
		o.OnCorruption = func(base.LogID, base.LogID, error) {}
	}
}

// setDefault sets *p to def where it is the zero value.
func setDefault[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// Validate refuses settings that cannot work.
func (o *Options) Validate() error {
	const minMemTable, maxMemTable = 256 << 10, 2 << 30
	switch {
	case o.Dir == "":
		return errors.New("hot store: Dir is not set")
	case o.MemTableBytes < minMemTable || o.MemTableBytes > maxMemTable:
		return fmt.Errorf("hot store: MemTableBytes is %d, want %d to %d", o.MemTableBytes, minMemTable, maxMemTable)
	case o.CacheBytes < 0:
		return fmt.Errorf("hot store: CacheBytes is %d", o.CacheBytes)
	case o.SpacePollInterval < 0 || o.DiskFullRetryInterval < 0 || o.LogSyncEvery < 0:
		return errors.New("hot store: an interval is negative")
	case o.MaxTableFailures < 0:
		return fmt.Errorf("hot store: MaxTableFailures is %d", o.MaxTableFailures)
	}
	return nil
}
