package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

const (
	// markerName is the file in the root that says that a bucket is here, and which one (FORMAT.md). No object is called so:
	// escape never returns a leading dot.
	markerName     = ".varve-bucket"
	markerMaxBytes = 64
)

// ready answers nil where the root holds the bucket's marker. Without it the directory is a mount point whose disk is
// not mounted, or was moved away: nothing may be written there, and what is not found there says nothing. It never makes
// a new bucket; the first one that succeeds claims the bucket.
func (b *Bucket) ready(ctx context.Context) error {
	id, err := b.readMarker()
	known := b.identity.Load()
	switch {
	case known == nil:
		if errors.Is(err, fs.ErrNotExist) {
			id, err = b.mark(true)
		}
		if err == nil {
			err = b.claim(ctx, id)
		}
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("it has no %s of the bucket %s", markerName, *known)
	case err == nil && id != *known:
		err = fmt.Errorf("its %s says %s, expected is the bucket %s", markerName, id, *known)
	}
	if err != nil {
		err = fmt.Errorf("directory bucket %s is not available: %w", b.root, err)
	}
	if ctx.Err() == nil {
		b.report(err)
	}
	return err
}

// claim makes the identity of a bucket that is used for the first time durable and known.
func (b *Bucket) claim(ctx context.Context, id string) error {
	if err := syncDir(b.fs, b.root); err != nil { // another process may have written the marker just now
		return err
	}
	if b.opts.Claim != nil {
		if err := b.opts.Claim(ctx, id); err != nil {
			return err
		}
	}
	b.identity.CompareAndSwap(nil, &id)
	return nil
}

// report logs that the bucket went away, or came back, once each.
func (b *Bucket) report(err error) {
	switch {
	case err != nil && !b.away.Swap(true):
		b.opts.Logger.Error("the bucket is not available: uploads and reads of what is not hot wait for it; mount the directory, or give the right --object-store",
			slog.String("directory", b.root), slog.Any("error", err))
	case err == nil && b.away.Swap(false):
		b.opts.Logger.Info("the bucket is available again", slog.String("directory", b.root))
	}
}

// readMarker answers the bucket's identity, or fs.ErrNotExist.
func (b *Bucket) readMarker() (id string, err error) {
	f, err := b.fs.Open(b.fs.PathJoin(b.root, markerName))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, markerMaxBytes))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read %s: %w", markerName, err)
	}
	id = strings.TrimSpace(string(text))
	if _, err := uuid.Parse(id); err != nil {
		return "", fmt.Errorf("%s holds %q: %w", markerName, text, err)
	}
	return id, nil
}

// mark gives a directory without a marker one, and answers the identity in it: its own, or that of another process which
// was first. With existing the directory must hold objects already: those of a version that wrote no marker.
func (b *Bucket) mark(existing bool) (id string, err error) {
	if existing {
		err = b.holdsObjects()
	} else {
		err = makeRoot(b.fs, b.root)
	}
	if err != nil {
		return "", err
	}
	id = uuid.NewString()
	path := b.fs.PathJoin(b.root, markerName)
	draft := path + "." + id
	err = writeSynced(b.fs, draft, id+"\n")
	if err == nil {
		if err = b.fs.Link(draft, path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	_ = b.fs.Remove(draft) // Best effort: nobody reads a draft.
	if err != nil {
		return "", err
	}
	return b.readMarker()
}

func writeSynced(disk vfs.FS, path, text string) error {
	f, err := disk.Create(path, "objstore-dir")
	if err != nil {
		return err
	}
	if _, err = io.WriteString(f, text); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// holdsObjects answers an error where there is no object.
func (b *Bucket) holdsObjects() error {
	for _, err := range b.walkTree(context.Background(), "", "", b.listLevel) {
		return err
	}
	return fmt.Errorf("no %s and no objects in it", markerName)
}
