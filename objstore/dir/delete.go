package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Delete implements objstore.Deleter. It removes directories that became empty.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	if err := b.ready(ctx); err != nil {
		return fmt.Errorf("delete %d objects: %w", len(keys), err)
	}
	touched := map[string][]string{} // directory of objects -> escaped directories
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("delete %q: %w", key, err)
		}
		dirs, name, err := split(key)
		if err != nil {
			return err
		}
		objects := b.fs.PathJoin(b.dirPath(dirs), objectsDir)
		err = b.fs.Remove(b.fs.PathJoin(objects, name))
		if errors.Is(err, fs.ErrNotExist) {
			if err = b.ready(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("delete %q: %w", key, err)
		}
		touched[objects] = dirs
	}
	for objects, dirs := range touched {
		if err := syncDir(b.fs, objects); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete %d objects: sync %s: %w", len(keys), objects, err)
		}
		b.removeEmpty(objects, dirs)
	}
	return nil
}

// removeEmpty removes the directory of objects and its ancestors as far as they are empty: the file system refuses the
// others, which is the expected end.
func (b *Bucket) removeEmpty(objects string, dirs []string) {
	if b.fs.Remove(objects) != nil {
		return
	}
	for i := len(dirs); i > 0; i-- {
		if b.fs.Remove(b.dirPath(dirs[:i])) != nil {
			return
		}
	}
}

// AbortUploads implements objstore.Deleter: it removes the upload files that crashes left behind. An upload file knows only
// its directory, so it lies below a prefix where its directory does: give prefixes that end with a slash.
func (b *Bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	n := 0
	for e, err := range b.walk(ctx, prefix, "", b.uploadsLevel) {
		if err != nil {
			return n, fmt.Errorf("abort uploads below %q: %w", prefix, err)
		}
		st, err := b.fs.Stat(e.path)
		if err == nil && !st.ModTime().Before(before) {
			continue
		}
		if err == nil {
			err = b.fs.Remove(e.path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // the upload ended meanwhile
		}
		if err != nil {
			return n, fmt.Errorf("abort upload %q: %w", e.key, err)
		}
		n++
	}
	return n, nil
}
