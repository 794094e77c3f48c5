package objstore

import (
	"context"
	"iter"
	"strings"
	"time"
)

// WithPrefix returns a bucket that holds the keys of b below prefix, without it. A non-empty prefix gets a slash at its end
// where it has none. An empty prefix returns b.
func WithPrefix(b Bucket, prefix string) Bucket {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return b
	}
	return &prefixed{b: b, prefix: prefix + "/"}
}

type prefixed struct {
	b      Bucket
	prefix string
}

func (p *prefixed) strip(i Info) Info {
	i.Key = strings.TrimPrefix(i.Key, p.prefix)
	return i
}

func (p *prefixed) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	return p.b.Get(ctx, p.prefix+key, off, length)
}

func (p *prefixed) Head(ctx context.Context, key string) (Info, error) {
	i, err := p.b.Head(ctx, p.prefix+key)
	return p.strip(i), err
}

func (p *prefixed) Put(ctx context.Context, key string, body Body) (Info, error) {
	i, err := p.b.Put(ctx, p.prefix+key, body)
	return p.strip(i), err
}

func (p *prefixed) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error] {
	if startAfter != "" {
		startAfter = p.prefix + startAfter
	}
	return func(yield func(Info, error) bool) {
		for i, err := range p.b.List(ctx, p.prefix+prefix, startAfter) {
			if !yield(p.strip(i), err) {
				return
			}
		}
	}
}

func (p *prefixed) Delete(ctx context.Context, keys ...string) error {
	full := make([]string, len(keys))
	for i, k := range keys {
		full[i] = p.prefix + k
	}
	return p.b.Delete(ctx, full...)
}

func (p *prefixed) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	return p.b.AbortUploads(ctx, p.prefix+prefix, before)
}

func (p *prefixed) Close() error { return p.b.Close() }
