package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/objstore"
)

const (
	copyBytes = 256 << 10
	// mkdirAttempts bounds the race with Delete, which removes directories that became empty.
	mkdirAttempts = 16
)

// Put implements objstore.Writer.
func (b *Bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	if err := objstore.CheckPut(key, body); err != nil {
		return objstore.Info{}, err
	}
	dirs, name, err := split(key)
	if err != nil {
		return objstore.Info{}, err
	}
	if err := b.ready(ctx); err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: %w", key, err)
	}
	objects := b.fs.PathJoin(b.dirPath(dirs), objectsDir)
	if _, err := b.fs.Stat(b.fs.PathJoin(objects, name)); err == nil {
		return objstore.Info{}, fmt.Errorf("put %q: %w", key, objstore.ErrExists) // spares the copy; the link decides
	}
	f, upload, err := b.createUpload(ctx, objects)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: %w", key, err)
	}
	info, err := writeUpload(ctx, f, body)
	if err = errors.Join(err, f.Close()); err == nil {
		err = b.publish(ctx, dirs, upload, b.fs.PathJoin(objects, name))
	}
	_ = b.fs.Remove(upload) // Best effort: AbortUploads removes what stays.
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: %w", key, err)
	}
	info.Key = key
	return info, nil
}

func (b *Bucket) createUpload(ctx context.Context, objects string) (vfs.File, string, error) {
	for attempt := 1; ; attempt++ {
		if err := b.fs.MkdirAll(objects, 0o755); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
		upload := b.fs.PathJoin(objects, uploadPrefix+b.id())
		f, err := b.fs.Create(upload, "objstore-dir")
		if err == nil || !errors.Is(err, fs.ErrNotExist) || attempt == mkdirAttempts {
			return f, upload, err
		}
		if err := b.ready(ctx); err != nil {
			return nil, "", err
		}
	}
}

// writeUpload writes the body and the trailer, syncs them, and verifies the checksum of what it wrote.
func writeUpload(ctx context.Context, f vfs.File, body objstore.Body) (objstore.Info, error) {
	w := newUploadWriter(f, body.Size)
	crc := uint32(0)
	for off := int64(0); off < body.Size; {
		if err := ctx.Err(); err != nil {
			return objstore.Info{}, err
		}
		p := w.buf[:min(int64(len(w.buf)), body.Size-off)]
		if n, err := body.ReadAt(p, off); n < len(p) {
			return objstore.Info{}, fmt.Errorf("read body at %d: %w: %w", off, objstore.ErrInvalid, err)
		}
		crc = objstore.UpdateChecksum(crc, p) // before write, which may change p
		if err := w.write(p); err != nil {
			return objstore.Info{}, err
		}
		off += int64(len(p))
	}
	if crc != body.CRC32C {
		return objstore.Info{}, fmt.Errorf("body has crc %08x, declared %08x: %w", crc, body.CRC32C, objstore.ErrChecksum)
	}
	if err := w.write(encodeTrailer(body.Size, crc)); err != nil {
		return objstore.Info{}, err
	}
	if err := f.Sync(); err != nil {
		return objstore.Info{}, err
	}
	return stat(f)
}

// publish gives the synced upload file its name and makes the name durable, with the directories on the way: another Put
// may have created one of them and not yet synced it.
func (b *Bucket) publish(ctx context.Context, dirs []string, upload, object string) error {
	err := b.fs.Link(upload, object)
	if errors.Is(err, fs.ErrExist) {
		return objstore.ErrExists
	}
	if err != nil {
		return err
	}
	err = syncDir(b.fs, b.fs.PathDir(object))
	for i := len(dirs); i >= 0 && err == nil; i-- {
		err = syncDir(b.fs, b.dirPath(dirs[:i]))
	}
	if err == nil {
		err = b.ready(ctx) // else the bucket went away meanwhile, and MkdirAll made directories where it was
	}
	if err != nil {
		// NB: a failed sync is never repeated, so a later Put must not find this name and take it for durable.
		return errors.Join(err, b.fs.Remove(object))
	}
	return nil
}
