package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
)

// Options configures a Bucket. The zero value is usable.
type Options struct {
	// FS is the disk. Default: the machine's (vfs.Default).
	FS vfs.FS
	// NewID names an upload file; ids must not repeat. Default: random UUIDs.
	NewID func() string
	// Logger hears when the bucket goes away and comes back. Default: discards.
	Logger *slog.Logger
	// Identity is that of the bucket which is meant: no other one is used or made. Empty: not known yet.
	Identity string
	// Existing forbids Open to make a new bucket: objects are known to be in the one that is meant.
	Existing bool
	// Claim is told the identity of a bucket that Identity does not name, before the first operation on it; an error
	// fails that operation, and the next one asks again. Default: none.
	Claim func(ctx context.Context, identity string) error
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.NewID == nil {
		o.NewID = uuid.NewString
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Bucket is a bucket in a local directory. It holds no state but which bucket it is, and is safe for concurrent use.
type Bucket struct {
	fs       vfs.FS
	root     string
	id       func() string
	opts     Options
	identity atomic.Pointer[string] // nil: not claimed yet
	away     atomic.Bool            // as of the last report
}

var _ objstore.Bucket = (*Bucket)(nil)

// Open returns the bucket in the directory root. Where that is missing or has no marker, it makes a bucket of it, unless
// Identity or Existing say that there is one elsewhere. A directory that cannot be used is no error (I13): it is logged,
// and operations fail, as retryable, until it can be.
func Open(root string, opts Options) (*Bucket, error) {
	opts.EnsureDefaults()
	if root == "" {
		return nil, fmt.Errorf("open directory bucket: no path: %w", objstore.ErrInvalid)
	}
	b := &Bucket{fs: opts.FS, root: root, id: opts.NewID, opts: opts}
	id, err := b.readMarker()
	switch {
	case opts.Identity != "":
		b.identity.Store(&opts.Identity)
		_ = b.ready(context.Background()) // logged
		return b, nil
	case errors.Is(err, fs.ErrNotExist):
		id, err = b.mark(opts.Existing)
	}
	if err == nil && opts.Claim == nil {
		err = b.claim(context.Background(), id)
	}
	b.report(err)
	return b, nil
}

// makeRoot creates the directory and syncs the parent of each directory that was missing.
func makeRoot(disk vfs.FS, root string) error {
	var parents []string
	for path := root; ; path = disk.PathDir(path) {
		_, err := disk.Stat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil || path == disk.PathDir(path) {
			break
		}
		parents = append(parents, disk.PathDir(path))
	}
	if err := disk.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for _, p := range parents {
		if err := syncDir(disk, p); err != nil {
			return err
		}
	}
	return nil
}

// Get implements objstore.Reader.
func (b *Bucket) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get %q: %w", key, err)
	}
	path, err := b.objectPath(key)
	if err != nil || length == 0 {
		return nil, err
	}
	f, info, err := b.open(ctx, key, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := objstore.CheckRange(key, info.Size, off, length)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, off); err != nil {
		return nil, fmt.Errorf("get %q [%d, %d): %w", key, off, off+n, err)
	}
	if n == info.Size && objstore.Checksum(data) != info.CRC32C {
		return nil, base.MarkCorruption(fmt.Errorf("get %q: crc %08x, want %08x: %w", key, objstore.Checksum(data), info.CRC32C, objstore.ErrChecksum))
	}
	return data, nil
}

// Head implements objstore.Reader.
func (b *Bucket) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, fmt.Errorf("head %q: %w", key, err)
	}
	path, err := b.objectPath(key)
	if err != nil {
		return objstore.Info{}, err
	}
	f, info, err := b.open(ctx, key, path)
	if err != nil {
		return objstore.Info{}, err
	}
	return info, f.Close()
}

// Close implements io.Closer. It does nothing: every operation closes what it opened.
func (b *Bucket) Close() error { return nil }

// open opens an object's file and reads its trailer. ErrNotFound means that the bucket is there and the object is not.
func (b *Bucket) open(ctx context.Context, key, path string) (vfs.File, objstore.Info, error) {
	f, err := b.fs.Open(path, vfs.RandomReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		if err := b.ready(ctx); err != nil {
			return nil, objstore.Info{}, fmt.Errorf("%q: %w", key, err)
		}
		return nil, objstore.Info{}, fmt.Errorf("%q: %w", key, objstore.ErrNotFound)
	}
	if err != nil {
		return nil, objstore.Info{}, fmt.Errorf("open %q: %w", key, err)
	}
	info, err := stat(f)
	if err != nil {
		f.Close()
		return nil, objstore.Info{}, fmt.Errorf("%q: %w", key, err)
	}
	info.Key = key
	return f, info, nil
}

func stat(f vfs.File) (objstore.Info, error) {
	st, err := f.Stat()
	if err != nil {
		return objstore.Info{}, err
	}
	var t [trailerBytes]byte
	if st.Size() >= trailerBytes {
		if _, err := f.ReadAt(t[:], st.Size()-trailerBytes); err != nil {
			return objstore.Info{}, err
		}
	}
	size, crc, err := decodeTrailer(t[:], st.Size())
	return objstore.Info{Size: size, CRC32C: crc, HasCRC: true, ModTime: st.ModTime()}, err
}

func (b *Bucket) objectPath(key string) (string, error) {
	dirs, name, err := split(key)
	if err != nil {
		return "", err
	}
	return b.fs.PathJoin(b.dirPath(dirs), objectsDir, name), nil
}

func (b *Bucket) dirPath(dirs []string) string {
	return b.fs.PathJoin(append([]string{b.root}, dirs...)...)
}

func syncDir(disk vfs.FS, path string) error {
	d, err := disk.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
