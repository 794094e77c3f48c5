// Package open turns the URL of `varve serve --object-store` into a bucket: the store that the scheme names, then metrics,
// then retries on top, so that every attempt is counted.
package open

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/dir"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/objstore/metered"
	"github.com/varvelog/varve/objstore/retry"
	"github.com/varvelog/varve/objstore/s3"
)

// Options are what the stack needs besides the URL. The zero value is usable.
type Options struct {
	Clock  clock.Clock  // default: clock.Real
	Meter  metric.Meter // default: none
	Logger *slog.Logger // default: discards
	FS     vfs.FS       // of dir URLs; default: vfs.Default
	// Of dir URLs: which bucket is meant; see dir.Options.
	Identity string
	Existing bool
	Claim    func(ctx context.Context, identity string) error
	// Retry bounds the retries; its Clock and Meter default to those above.
	Retry retry.Options
	// AccessKey and SecretKey replace the credentials that AWS tools find; for tests and tools that start their own server.
	AccessKey, SecretKey string
}

// Open returns the bucket at the URL: dir:///absolute/path or dir://relative/path, mem: (a new, empty one),
// or s3://bucket/prefix?endpoint=…&region=…&path-style=…&create=… (see s3.ParseURL). An S3 server that cannot be reached and
// a directory that cannot be used are no errors (I13); a bucket that an S3 server says is missing is one.
func Open(ctx context.Context, url string, opts Options) (objstore.Bucket, error) {
	b, err := openStore(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	stack, err := metered.Wrap(b, opts.Meter, opts.Clock)
	if err == nil {
		if opts.Retry.Clock == nil {
			opts.Retry.Clock = opts.Clock
		}
		if opts.Retry.Meter == nil {
			opts.Retry.Meter = opts.Meter
		}
		stack, err = retry.Wrap(stack, opts.Retry)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return stack, nil
}

// CheckURL answers the error of a URL that Open can never open; it opens nothing.
func CheckURL(url string) error {
	scheme, rest, _ := strings.Cut(url, ":")
	switch scheme {
	case "dir":
		if path, ok := strings.CutPrefix(rest, "//"); !ok || path == "" {
			return fmt.Errorf("object store url %q: want dir:///path: %w", url, objstore.ErrInvalid)
		}
	case "mem":
	case "s3":
		_, err := s3.ParseURL(url)
		return err
	default:
		return fmt.Errorf("object store url %q: unknown scheme, want dir, s3 or mem: %w", url, objstore.ErrInvalid)
	}
	return nil
}

func openStore(ctx context.Context, url string, opts Options) (objstore.Bucket, error) {
	if err := CheckURL(url); err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(url, ":")
	switch scheme {
	case "dir":
		return dir.Open(strings.TrimPrefix(rest, "//"), dir.Options{FS: opts.FS, Logger: opts.Logger, Identity: opts.Identity, Existing: opts.Existing, Claim: opts.Claim})
	case "mem":
		return mem.New(mem.Options{Clock: opts.Clock}), nil
	}
	o, err := s3.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.AccessKey, o.SecretKey, o.Logger = opts.AccessKey, opts.SecretKey, opts.Logger
	return s3.Open(ctx, o)
}
