package mem

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
)

// Options configures a Bucket. The zero value is usable.
type Options struct {
	// Clock stamps objects. Default: clock.Real.
	Clock clock.Clock
	// ForbidReuse refuses a Put under a key that was deleted: names are never reused (I6). Default: false, as stores do.
	ForbidReuse bool
	// TraceOps bounds the operation trace: the oldest lines go first. Default: 65,536.
	TraceOps int
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.TraceOps <= 0 {
		o.TraceOps = 1 << 16
	}
}

// Bucket is a bucket in memory. Safe for concurrent use. Close forgets nothing, so a test may look at it afterwards.
type Bucket struct {
	opts Options
	mu   struct {
		sync.Mutex
		objects map[string]object
		deleted map[string]struct{} // filled only where ForbidReuse
		uploads map[string]time.Time
		trace   []string
	}
}

type object struct {
	data []byte // never modified
	info objstore.Info
}

var _ objstore.Bucket = (*Bucket)(nil)

// New returns an empty bucket.
func New(opts Options) *Bucket {
	opts.EnsureDefaults()
	b := &Bucket{opts: opts}
	b.mu.objects = map[string]object{}
	b.mu.deleted = map[string]struct{}{}
	b.mu.uploads = map[string]time.Time{}
	return b
}

// Get implements objstore.Reader.
func (b *Bucket) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	data, err := b.get(ctx, key, off, length)
	b.record(err, "get %s [%d, +%d)", key, off, length)
	return data, err
}

func (b *Bucket) get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get %q: %w", key, err)
	}
	if err := objstore.CheckKey(key); err != nil {
		return nil, err
	}
	if length == 0 {
		return nil, nil
	}
	o, err := b.lookup(key)
	if err != nil {
		return nil, err
	}
	n, err := objstore.CheckRange(key, o.info.Size, off, length)
	if err != nil {
		return nil, err
	}
	return slices.Clone(o.data[off : off+n]), nil
}

func (b *Bucket) lookup(key string) (object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.mu.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%q: %w", key, objstore.ErrNotFound)
	}
	return o, nil
}

// Head implements objstore.Reader.
func (b *Bucket) Head(ctx context.Context, key string) (objstore.Info, error) {
	o, err := object{}, ctx.Err()
	if err == nil {
		err = objstore.CheckKey(key)
	}
	if err == nil {
		o, err = b.lookup(key)
	}
	b.record(err, "head %s", key)
	return o.info, err
}

// Put implements objstore.Writer.
func (b *Bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	info, err := b.put(ctx, key, body)
	b.record(err, "put %s size=%d", key, body.Size)
	return info, err
}

func (b *Bucket) put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: %w", key, err)
	}
	if err := objstore.CheckPut(key, body); err != nil {
		return objstore.Info{}, err
	}
	data := make([]byte, body.Size)
	if _, err := io.ReadFull(io.NewSectionReader(body, 0, body.Size), data); err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: read body: %w: %w", key, objstore.ErrInvalid, err)
	}
	if got := objstore.Checksum(data); got != body.CRC32C {
		return objstore.Info{}, fmt.Errorf("put %q: body has crc %08x, declared %08x: %w", key, got, body.CRC32C, objstore.ErrChecksum)
	}
	info := objstore.Info{Key: key, Size: body.Size, CRC32C: body.CRC32C, HasCRC: true, ModTime: b.opts.Clock.Now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.checkFreeLocked(key); err != nil {
		return objstore.Info{}, err
	}
	b.mu.objects[key] = object{data: data, info: info}
	return info, nil
}

// checkFreeLocked refuses keys that exist, that are a directory of another, that have an object as a directory, or that
// were used before. It is linear in the number of objects: this is a test bucket.
func (b *Bucket) checkFreeLocked(key string) error {
	if _, ok := b.mu.objects[key]; ok {
		return fmt.Errorf("put %q: %w", key, objstore.ErrExists)
	}
	if _, ok := b.mu.deleted[key]; ok {
		return fmt.Errorf("put %q: the name was used before: %w", key, objstore.ErrInvalid)
	}
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		if _, ok := b.mu.objects[key[:i]]; ok {
			return fmt.Errorf("put %q: %q is an object: %w", key, key[:i], objstore.ErrInvalid)
		}
	}
	for k := range b.mu.objects {
		if strings.HasPrefix(k, key) && k[len(key)] == '/' {
			return fmt.Errorf("put %q: it is a directory of %q: %w", key, k, objstore.ErrInvalid)
		}
	}
	return nil
}

// List implements objstore.Lister. It yields the objects that existed when it began.
func (b *Bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		err := ctx.Err()
		b.record(err, "list %s after %q", prefix, startAfter)
		if err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
			return
		}
		for _, info := range b.snapshot(prefix, startAfter) {
			if err := ctx.Err(); err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (b *Bucket) snapshot(prefix, startAfter string) []objstore.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	var infos []objstore.Info
	for k, o := range b.mu.objects {
		if strings.HasPrefix(k, prefix) && k > startAfter {
			i := o.info
			i.CRC32C, i.HasCRC = 0, false // no real store lists checksums
			infos = append(infos, i)
		}
	}
	slices.SortFunc(infos, func(a, b objstore.Info) int { return strings.Compare(a.Key, b.Key) })
	return infos
}

// Delete implements objstore.Deleter.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	err := ctx.Err()
	for _, k := range keys {
		if err == nil {
			err = objstore.CheckKey(k)
		}
	}
	b.record(err, "delete %s", strings.Join(keys, " "))
	if err != nil {
		return fmt.Errorf("delete %d objects: %w", len(keys), err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		if _, ok := b.mu.objects[k]; ok && b.opts.ForbidReuse {
			b.mu.deleted[k] = struct{}{}
		}
		delete(b.mu.objects, k)
	}
	return nil
}

// StartUpload makes AbortUploads find an unfinished upload of key that began at the given time.
func (b *Bucket) StartUpload(key string, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.uploads[key] = began
}

// AbortUploads implements objstore.Deleter. Only StartUpload leaves uploads behind.
func (b *Bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	err := ctx.Err()
	b.record(err, "abort-uploads %s", prefix)
	if err != nil {
		return 0, fmt.Errorf("abort uploads below %q: %w", prefix, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for k, began := range b.mu.uploads {
		if strings.HasPrefix(k, prefix) && began.Before(before) {
			delete(b.mu.uploads, k)
			n++
		}
	}
	return n, nil
}

// Close implements io.Closer. It does nothing.
func (b *Bucket) Close() error { return nil }
