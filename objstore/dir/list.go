package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"syscall"

	"github.com/varvelog/varve/objstore"
)

// entry is an object or a directory of keys. The key of a directory ends with a slash, which makes the bytewise order of
// entries the order of the keys in them.
type entry struct {
	key  string
	path string
}

// List implements objstore.Lister. It reads one directory at a time: memory is bounded by the largest one.
func (b *Bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for e, err := range b.walk(ctx, prefix, startAfter, b.listLevel) {
			if err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			st, err := b.fs.Stat(e.path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted meanwhile
			}
			if err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			if !yield(objstore.Info{Key: e.key, Size: max(0, st.Size()-trailerBytes), ModTime: st.ModTime()}, nil) {
				return
			}
		}
	}
}

// walk is walkTree of a bucket that was there before and after: where it was not, missing directories are no answer.
func (b *Bucket) walk(ctx context.Context, prefix, startAfter string, level func(path, key string) ([]entry, error)) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		if err := b.ready(ctx); err != nil {
			yield(entry{}, err)
			return
		}
		for e, err := range b.walkTree(ctx, prefix, startAfter, level) {
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := b.ready(ctx); err != nil {
			yield(entry{}, err)
		}
	}
}

// walkTree yields the entries that level returns, except directories, in key order, depth first.
func (b *Bucket) walkTree(ctx context.Context, prefix, startAfter string, level func(path, key string) ([]entry, error)) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		root, dirs, ok := startOf(prefix)
		if !ok {
			return
		}
		todo := []entry{{key: root, path: b.dirPath(dirs)}} // a stack: the next entry is the last
		for len(todo) > 0 {
			e := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if e.key != "" && !strings.HasSuffix(e.key, "/") {
				if strings.HasPrefix(e.key, prefix) && e.key > startAfter && !yield(e, nil) {
					return
				}
				continue
			}
			if !mayHold(e.key, prefix, startAfter) {
				continue
			}
			err := ctx.Err()
			var entries []entry
			if err == nil {
				entries, err = level(e.path, e.key)
			}
			if err != nil {
				yield(entry{}, err)
				return
			}
			slices.SortFunc(entries, func(x, y entry) int { return strings.Compare(y.key, x.key) })
			todo = append(todo, entries...)
		}
	}
}

// startOf returns the deepest directory that holds every key with the prefix, as a key and as escaped names. Where no key
// can have the prefix, ok is false.
func startOf(prefix string) (key string, dirs []string, ok bool) {
	key = prefix[:strings.LastIndexByte(prefix, '/')+1]
	if key == "" {
		return "", nil, true
	}
	dirs, last, err := split(strings.TrimSuffix(key, "/"))
	return key, append(dirs, last), err == nil
}

// mayHold reports whether the directory can hold a key with the prefix that is greater than startAfter.
func mayHold(dir, prefix, startAfter string) bool {
	if !strings.HasPrefix(dir, prefix) && !strings.HasPrefix(prefix, dir) {
		return false
	}
	return dir > startAfter || strings.HasPrefix(startAfter, dir)
}

// listLevel reads one level: the directories below path, and the objects of its `#`. Foreign files are passed over.
func (b *Bucket) listLevel(path, key string) ([]entry, error) {
	entries, err := b.readNames(path, func(name string) (entry, bool) {
		seg, ok := unescape(name)
		return entry{key: key + seg + "/", path: b.fs.PathJoin(path, name)}, ok && name != objectsDir
	})
	if err != nil {
		return nil, err
	}
	objects := b.fs.PathJoin(path, objectsDir)
	files, err := b.readNames(objects, func(name string) (entry, bool) {
		seg, ok := unescape(name)
		return entry{key: key + seg, path: b.fs.PathJoin(objects, name)}, ok
	})
	return append(entries, files...), err
}

// uploadsLevel is listLevel for upload files: their key is the directory's with the upload file's own name.
func (b *Bucket) uploadsLevel(path, key string) ([]entry, error) {
	entries, err := b.listLevel(path, key)
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return !strings.HasSuffix(e.key, "/") })
	objects := b.fs.PathJoin(path, objectsDir)
	files, err := b.readNames(objects, func(name string) (entry, bool) {
		return entry{key: key + name, path: b.fs.PathJoin(objects, name)}, strings.HasPrefix(name, uploadPrefix)
	})
	return append(entries, files...), err
}

// readNames turns the names in a directory into entries. A missing directory is empty, and so is a file of somebody else.
func (b *Bucket) readNames(path string, entryOf func(name string) (entry, bool)) ([]entry, error) {
	names, err := b.fs.List(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(names))
	for _, n := range names {
		if e, ok := entryOf(n); ok {
			entries = append(entries, e)
		}
	}
	return entries, nil
}
