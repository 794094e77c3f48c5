// Package metered wraps a bucket with metrics: requests, bytes, seconds and what is under way, per operation and outcome
// (objstore.Class). Below package retry it counts attempts, above it what callers see.
package metered

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
)

type bucket struct {
	b        objstore.Bucket
	clock    clock.Clock
	requests metric.Int64Counter
	bytes    metric.Int64Counter
	seconds  metric.Float64Histogram
	running  metric.Int64UpDownCounter
}

// Wrap returns b with metrics. A nil meter returns b itself; a nil clock is clock.Real.
func Wrap(b objstore.Bucket, m metric.Meter, c clock.Clock) (objstore.Bucket, error) {
	if m == nil {
		return b, nil
	}
	if c == nil {
		c = clock.Real{}
	}
	x := &bucket{b: b, clock: c}
	var errs [4]error
	x.requests, errs[0] = m.Int64Counter("varve_objstore_requests_total",
		metric.WithDescription("Requests to the object store, attempts counted one by one, by operation and outcome."))
	x.bytes, errs[1] = m.Int64Counter("varve_objstore_bytes_total",
		metric.WithDescription("Bytes of objects moved by successful requests, by operation."))
	x.seconds, errs[2] = m.Float64Histogram("varve_objstore_request_duration_seconds",
		metric.WithDescription("Time of a request to the object store, by operation and outcome."),
		metric.WithExplicitBucketBoundaries(.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 100))
	x.running, errs[3] = m.Int64UpDownCounter("varve_objstore_requests_running",
		metric.WithDescription("Requests to the object store under way, by operation."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("object store metrics: %w", err)
	}
	return x, nil
}

// begin counts a request that starts and returns what ends it.
func (x *bucket) begin(ctx context.Context, operation string) func(bytes int64, err error) {
	op := attribute.String("operation", operation)
	ctx = context.WithoutCancel(ctx)
	x.running.Add(ctx, 1, metric.WithAttributes(op))
	start := x.clock.Now()
	return func(bytes int64, err error) {
		both := metric.WithAttributes(op, attribute.String("outcome", string(objstore.Classify(err))))
		x.running.Add(ctx, -1, metric.WithAttributes(op))
		x.requests.Add(ctx, 1, both)
		x.seconds.Record(ctx, x.clock.Now().Sub(start).Seconds(), both)
		if err == nil && bytes > 0 {
			x.bytes.Add(ctx, bytes, metric.WithAttributes(op))
		}
	}
}

func (x *bucket) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	end := x.begin(ctx, "get")
	data, err := x.b.Get(ctx, key, off, length)
	end(int64(len(data)), err)
	return data, err
}

func (x *bucket) Head(ctx context.Context, key string) (objstore.Info, error) {
	end := x.begin(ctx, "head")
	info, err := x.b.Head(ctx, key)
	end(0, err)
	return info, err
}

func (x *bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	end := x.begin(ctx, "put")
	info, err := x.b.Put(ctx, key, body)
	end(body.Size, err)
	return info, err
}

// List counts as one request, however many pages it takes; its time includes the caller's.
func (x *bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		end := x.begin(ctx, "list")
		var failed error
		defer func() { end(0, failed) }()
		for info, err := range x.b.List(ctx, prefix, startAfter) {
			if err != nil {
				failed = err
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (x *bucket) Delete(ctx context.Context, keys ...string) error {
	end := x.begin(ctx, "delete")
	err := x.b.Delete(ctx, keys...)
	end(0, err)
	return err
}

func (x *bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	end := x.begin(ctx, "abort_uploads")
	n, err := x.b.AbortUploads(ctx, prefix, before)
	end(0, err)
	return n, err
}

func (x *bucket) Close() error { return x.b.Close() }
