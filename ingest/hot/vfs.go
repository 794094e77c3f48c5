package hot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/clock"
)

// disk is the file system that Pebble sees. It adds three rules to the one below it:
//
// A write that meets ENOSPC waits and is tried again until it succeeds, so a full disk stops writes without an error, and they
// go on when there is room. Without it Pebble ends the process, or hangs (pebble issue 3427).
//
// A failed sync is final, whatever the error: the kernel may have dropped the pages and would report success the second time.
// So is a failed write to a log or a manifest. Such an operation ends in Store.fail and never returns: told of it, Pebble may
// unlock a mutex that it does not hold, which ends the process without a word.
//
// Nothing is preallocated: Pebble would reserve 110 % of a memtable for each log file, also for the ten small ones after a
// start, and keep them: gigabytes for a broker that does nothing.
type disk struct {
	vfs.FS
	health      io.Closer
	clock       clock.Clock
	retryAfter  time.Duration
	maxFailures int64
	space       *space
	fail        func(error) error
	logSynced   func(time.Duration)
	failures    atomic.Int64 // table files in a row that could not be written
}

var _ vfs.FS = (*disk)(nil)

func newDisk(s *Store) *disk {
	d := &disk{
		FS: s.opts.FS, clock: s.opts.Clock, retryAfter: s.opts.DiskFullRetryInterval, space: s.space,
		maxFailures: int64(s.opts.MaxTableFailures), fail: s.fail, logSynced: s.metrics.logSynced,
	}
	if s.opts.DiskSlowAfter > 0 {
		d.FS, d.health = vfs.WithDiskHealthChecks(s.opts.FS, s.opts.DiskSlowAfter, nil, s.diskSlow)
	}
	return d
}

// close ends the disk-health goroutines.
func (d *disk) close() error {
	if d.health == nil {
		return nil
	}
	return d.health.Close()
}

// Unwrap implements vfs.FS.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// die reports a failure that is final. It does not return, also where OnFatal does.
func (d *disk) die(err error) {
	_ = d.fail(err) // told to OnFatal
	select {}
}

// retry runs op until it returns something else than ENOSPC. The caller is one of Pebble's goroutines, and waits.
func (d *disk) retry(op func() error) error {
	err := op()
	if !vfs.IsNoSpaceError(err) {
		return err
	}
	d.space.block(err)
	defer d.space.unblock()
	for vfs.IsNoSpaceError(err) {
		<-d.clock.NewTimer(d.retryAfter).C
		err = op()
	}
	return err
}

// isTable reports a file written by a flush or a compaction: an error there is retried by Pebble with another file.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// Create implements vfs.FS.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	switch {
	case isTable(name):
		d.pause()
	case d.isMarker(name):
		if err := d.syncDir(d.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return d.open(name, func() (vfs.File, error) { return d.FS.Create(name, category) })
}

// pause holds the next table file back after failures: 100 ms, doubling up to 5 s. Pebble retries a flush without a pause,
// thousands of times a second. None of its locks is held here, unlike in its error events.
func (d *disk) pause() {
	if n := d.failures.Load(); n > 0 {
		<-d.clock.NewTimer(min(100*time.Millisecond<<min(n-1, 10), 5*time.Second)).C
	}
}

// tableFailed counts a table file that could not be written. Pebble drops it and will write another; the data is in the log.
func (d *disk) tableFailed(err error) error {
	if n := d.failures.Add(1); n >= d.maxFailures {
		d.die(fmt.Errorf("%d table files in a row failed: %w", n, err))
	}
	return err
}

// isMarker reports one of the files whose names tell Pebble its format and its current manifest. Pebble makes a manifest, makes
// the marker that names it, removes the marker before, and syncs the directory once, at the end. Where a file system does not
// keep that order, a power cut in between leaves a marker without its manifest, and the store does not open again, or no
// marker, and it opens empty. So the directory is synced before each of the two steps.
func (d *disk) isMarker(name string) bool { return strings.HasPrefix(d.PathBase(name), "marker.") }

// syncDir makes the entries of a directory durable.
func (d *disk) syncDir(name string) error {
	dir, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// open opens a file for writing. Not to get a new log file is final.
func (d *disk) open(name string, fn func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := d.retry(func() (err error) { f, err = fn(); return err })
	if err == nil {
		return &diskFile{File: f, disk: d, name: name}, nil
	}
	switch {
	case isLog(name):
		d.die(fmt.Errorf("create log file %s: %w", name, err))
	case isTable(name):
		err = d.tableFailed(err)
	}
	return nil, err
}

// ReuseForWrite implements vfs.FS: Pebble takes an old log file for the next one.
func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	renamed := false
	return d.open(newname, func() (vfs.File, error) {
		if renamed {
			// The first try renamed the file and failed to open it, or not: Create is right in both cases.
			return d.FS.Create(newname, category)
		}
		renamed = true
		return d.FS.ReuseForWrite(oldname, newname, category)
	})
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, category, opts...) })
}

// OpenDir implements vfs.FS: syncs of a directory are as final as those of a file.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d, name: name}, nil
}

// Link implements vfs.FS.
func (d *disk) Link(oldname, newname string) error {
	return d.retry(func() error { return d.FS.Link(oldname, newname) })
}

// Rename implements vfs.FS.
func (d *disk) Rename(oldname, newname string) error {
	return d.retry(func() error { return d.FS.Rename(oldname, newname) })
}

// Remove implements vfs.FS. A copy-on-write file system needs space to remove.
func (d *disk) Remove(name string) error {
	if d.isMarker(name) {
		if err := d.syncDir(d.PathDir(name)); err != nil {
			return err
		}
	}
	return d.retry(func() error { return d.FS.Remove(name) })
}

// MkdirAll implements vfs.FS.
func (d *disk) MkdirAll(dir string, perm fs.FileMode) error {
	return d.retry(func() error { return d.FS.MkdirAll(dir, perm) })
}

// diskFile is a file open for writing.
type diskFile struct {
	vfs.File
	disk *disk
	name string
}

// Write implements vfs.File. A short write goes on where it stopped.
func (f *diskFile) Write(p []byte) (int, error) {
	done := 0
	err := f.disk.retry(func() error {
		n, err := f.File.Write(p[done:])
		done += n
		return err
	})
	return done, f.checkWrite(err)
}

// WriteAt implements vfs.File.
func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	err := f.disk.retry(func() error {
		n, err := f.File.WriteAt(p[done:], off+int64(done))
		done += n
		return err
	})
	return done, f.checkWrite(err)
}

func (f *diskFile) checkWrite(err error) error {
	switch {
	case err == nil:
		return nil
	case isTable(f.name):
		return f.disk.tableFailed(err)
	}
	f.disk.die(fmt.Errorf("write %s: %w", f.name, err))
	return err
}

// Preallocate implements vfs.File and does nothing.
func (f *diskFile) Preallocate(int64, int64) error { return nil }

// Sync implements vfs.File.
func (f *diskFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *diskFile) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *diskFile) SyncTo(length int64) (full bool, err error) {
	return full, f.sync(func() (err error) { full, err = f.File.SyncTo(length); return err })
}

func (f *diskFile) sync(fn func() error) error {
	start := f.disk.clock.Now()
	if err := fn(); err != nil {
		f.disk.die(fmt.Errorf("sync %s: %w", f.name, err))
	}
	switch {
	case isLog(f.name):
		f.disk.logSynced(f.disk.clock.Now().Sub(start))
	case isTable(f.name):
		f.disk.failures.Store(0)
	}
	return nil
}
