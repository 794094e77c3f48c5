package sim

import (
	"log/slog"
	"math/rand/v2"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/testutil/crashfs"
)

// disk is a machine's disk as one process sees it. The sync at which its fuse burns down fails, and a process whose sync fails
// ends at once (I1): so it is killed there, with nothing of that sync on the disk.
type disk struct {
	vfs.FS
	p *process
}

func newDisk(mem *vfs.MemFS, p *process) vfs.FS { return disk{crashfs.Wrap(mem), p} }

// Unwrap implements vfs.FS.
func (d disk) Unwrap() vfs.FS { return d.FS }

func (d disk) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return logFile{f, d.p}, nil
}

// Create implements vfs.FS.
func (d disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	return d.file(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (d disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(oldname, newname, category)
	return d.file(newname, f, err)
}

// logFile is a file of the write-ahead log.
type logFile struct {
	vfs.File
	p *process
}

// burn reports whether the process dies at this sync.
func (f logFile) burn() bool {
	if f.p.fuse.Load() == 0 || f.p.fuse.Add(-1) != 0 {
		return false
	}
	n := f.p.n
	n.c.log.Info("a sync fails", slog.Int("broker", int(n.id)))
	n.kill(f.p, 50, rand.New(rand.NewPCG(uint64(n.id), n.c.seed)))
	return true
}

// Sync implements vfs.File.
func (f logFile) Sync() error {
	if f.burn() {
		return nil
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f logFile) SyncData() error {
	if f.burn() {
		return nil
	}
	return f.File.SyncData()
}

// SyncTo implements vfs.File.
func (f logFile) SyncTo(length int64) (full bool, err error) {
	if f.burn() {
		return true, nil
	}
	return f.File.SyncTo(length)
}
