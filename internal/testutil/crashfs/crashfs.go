// Package crashfs makes Pebble's crashable memory disk safe to clone while it is in use.
package crashfs

import "github.com/cockroachdb/pebble/v2/vfs"

// Wrap returns mem for use by a store whose disk is cloned with mem.CrashClone at the same time. MemFS.ReuseForWrite takes a
// read lock and, inside it, Rename takes it again: with a CrashClone waiting for the write lock in between, all three wait
// for ever (Pebble 2.1.7). The wrapper renames and opens in two steps instead.
func Wrap(mem *vfs.MemFS) vfs.FS { return reuse{mem} }

type reuse struct{ *vfs.MemFS }

// ReuseForWrite implements vfs.FS.
func (r reuse) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := r.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return r.OpenReadWrite(newname, category)
}

// Unwrap implements vfs.FS.
func (r reuse) Unwrap() vfs.FS { return r.MemFS }
