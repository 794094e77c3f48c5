package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/varvelog/varve/objstore"
)

// deleteBatch is how many keys one request may delete.
const deleteBatch = 1000

// List implements objstore.Lister, a page of up to 1,000 keys per request.
func (b *Bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		ctx, w := b.watch(ctx, 0)
		defer w.stop()
		opts := minio.ListObjectsOptions{Prefix: prefix, StartAfter: startAfter, Recursive: true}
		for o := range b.core.ListObjectsIter(ctx, b.opts.Bucket, opts) {
			w.pause()
			if o.Err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, mapError(ctx, o.Err)))
				return
			}
			if !yield(objstore.Info{Key: o.Key, Size: o.Size, ModTime: o.LastModified}, nil) {
				return
			}
			w.feed(0)
		}
		if ctx.Err() != nil { // the library ends silently
			yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, context.Cause(ctx)))
		}
	}
}

// Delete implements objstore.Deleter, up to 1,000 keys per request.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := objstore.CheckKey(key); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(keys, deleteBatch) {
		if err := b.deleteBatch(ctx, batch); err != nil {
			return fmt.Errorf("delete %d objects: %w", len(keys), err)
		}
	}
	return nil
}

func (b *Bucket) deleteBatch(ctx context.Context, keys []string) error {
	ctx, w := b.watch(ctx, 0)
	defer w.stop()
	if len(keys) == 1 {
		err := mapError(ctx, b.core.RemoveObject(ctx, b.opts.Bucket, keys[0], minio.RemoveObjectOptions{}))
		if errors.Is(err, objstore.ErrNotFound) {
			return nil
		}
		return err
	}
	objects := func(yield func(minio.ObjectInfo) bool) {
		for _, k := range keys {
			if !yield(minio.ObjectInfo{Key: k}) {
				return
			}
		}
	}
	results, err := b.core.RemoveObjectsWithIter(ctx, b.opts.Bucket, objects, minio.RemoveObjectsOptions{})
	if err != nil {
		return mapError(ctx, err)
	}
	answers := 0
	for r := range results {
		if err := mapError(ctx, r.Err); err != nil && !errors.Is(err, objstore.ErrNotFound) {
			return fmt.Errorf("%q: %w", r.ObjectName, err)
		}
		answers++
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if answers != len(keys) {
		return fmt.Errorf("the store answered for %d of %d keys", answers, len(keys))
	}
	return nil
}

// AbortUploads implements objstore.Deleter. We start no multipart uploads; other tools and older versions may have.
func (b *Bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	// NB: the library blocks on its channel for ever where nobody reads to its end, hence the cancel and the drain.
	listCtx, w := b.watch(ctx, 0)
	// NB: MinIO finds uploads by their whole key or with no prefix at all, so the prefix is applied here.
	uploads := b.core.ListIncompleteUploads(listCtx, b.opts.Bucket, "", true)
	defer func() {
		w.stop()
		for range uploads {
		}
	}()
	n := 0
	for u := range uploads {
		w.pause()
		if u.Err != nil {
			return n, fmt.Errorf("list uploads below %q: %w", prefix, mapError(listCtx, u.Err))
		}
		if strings.HasPrefix(u.Key, prefix) && u.Initiated.Before(before) {
			if err := b.abort(ctx, u); err != nil {
				return n, fmt.Errorf("abort upload of %q: %w", u.Key, err)
			}
			n++
		}
		w.feed(0)
	}
	return n, nil
}

func (b *Bucket) abort(ctx context.Context, u minio.ObjectMultipartInfo) error {
	ctx, w := b.watch(ctx, 0)
	defer w.stop()
	err := b.core.AbortMultipartUpload(ctx, b.opts.Bucket, u.Key, u.UploadID)
	var r minio.ErrorResponse
	if errors.As(err, &r) && r.Code == "NoSuchUpload" {
		return nil
	}
	return mapError(ctx, err)
}
