// Package retry wraps a bucket so that requests which may succeed later are repeated, within limits: attempts and time per
// request, and a quota shared by all requests, so that a store that is down or throttles is not asked many times more than
// one that works.
//
// A Put that is repeated may find its own object, when the reply of an earlier attempt was lost. Where an earlier attempt
// ended without an answer and the object that exists has the size and checksum of the body, the Put has succeeded.
package retry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
)

// Options bounds the retries.
type Options struct {
	// Attempts bounds the attempts of one request, the first one included. Default: 5.
	Attempts int
	// MaxElapsed bounds the time from a request's begin to the begin of its last attempt. Default: 1 minute.
	MaxElapsed time.Duration
	// BaseDelay is the longest wait before the first retry; it doubles with each one up to MaxDelay, and the wait is uniform
	// between half of it and all of it. A throttled request starts at ThrottleDelay. Defaults: 100 ms, 30 s, 1 s.
	BaseDelay, MaxDelay, ThrottleDelay time.Duration
	// Quota is the size of the token bucket that all requests share: a retry takes RetryCost tokens, ThrottleCost where the
	// store throttles, and a success gives one back. An empty bucket ends all retries. Defaults: 500, 5, 10.
	Quota, RetryCost, ThrottleCost int

	Clock clock.Clock    // default: clock.Real
	Rand  func() float64 // uniform in [0, 1), for the jitter; safe for concurrent use. Default: math/rand/v2.
	Meter metric.Meter   // default: none
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	o.Attempts = cmp.Or(o.Attempts, 5)
	o.MaxElapsed = cmp.Or(o.MaxElapsed, time.Minute)
	o.BaseDelay = cmp.Or(o.BaseDelay, 100*time.Millisecond)
	o.MaxDelay = cmp.Or(o.MaxDelay, 30*time.Second)
	o.ThrottleDelay = cmp.Or(o.ThrottleDelay, time.Second)
	o.Quota = cmp.Or(o.Quota, 500)
	o.RetryCost = cmp.Or(o.RetryCost, 5)
	o.ThrottleCost = cmp.Or(o.ThrottleCost, 10)
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Meter == nil {
		o.Meter = noop.Meter{}
	}
}

type bucket struct {
	b       objstore.Bucket
	opts    Options
	retries metric.Int64Counter
	refused metric.Int64Counter
	mu      struct {
		sync.Mutex
		tokens int
	}
}

// Wrap returns b with retries.
func Wrap(b objstore.Bucket, opts Options) (objstore.Bucket, error) {
	opts.EnsureDefaults()
	x := &bucket{b: b, opts: opts}
	x.mu.tokens = opts.Quota
	var err1, err2, err3 error
	x.retries, err1 = opts.Meter.Int64Counter("varve_objstore_retries_total",
		metric.WithDescription("Repeated requests to the object store, by operation and by the outcome that caused the retry."))
	x.refused, err2 = opts.Meter.Int64Counter("varve_objstore_retries_refused_total",
		metric.WithDescription("Retries not made because the shared quota was empty, by operation."))
	_, err3 = opts.Meter.Int64ObservableGauge("varve_objstore_retry_tokens",
		metric.WithDescription("Tokens left of the quota that all retries share."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			o.Observe(int64(x.mu.tokens))
			return nil
		}))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("object store retry metrics: %w", err)
	}
	return x, nil
}

// run is the state of one request.
type run struct {
	x         *bucket
	operation string
	start     time.Time
	attempt   int
}

func (x *bucket) begin(operation string) *run {
	return &run{x: x, operation: operation, start: x.opts.Clock.Now()}
}

// again waits and reports true where the request is to be repeated after err; else the last error is the request's.
func (r *run) again(ctx context.Context, err error) bool {
	class := objstore.Classify(err)
	if err == nil {
		r.x.refill()
		return false
	}
	r.attempt++
	if !class.Retryable() || ctx.Err() != nil || r.attempt >= r.x.opts.Attempts {
		return false
	}
	wait := r.x.delay(class, r.attempt)
	if r.x.opts.Clock.Now().Add(wait).Sub(r.start) > r.x.opts.MaxElapsed {
		return false
	}
	op := attribute.String("operation", r.operation)
	if !r.x.take(class) {
		r.x.refused.Add(ctx, 1, metric.WithAttributes(op))
		return false
	}
	t := r.x.opts.Clock.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		r.x.retries.Add(ctx, 1, metric.WithAttributes(op, attribute.String("outcome", string(class))))
		return true
	case <-ctx.Done():
		return false
	}
}

// delay is the wait before the attempt after the given one.
func (x *bucket) delay(class objstore.Class, attempt int) time.Duration {
	d := x.opts.BaseDelay
	if class == objstore.ClassThrottled {
		d = x.opts.ThrottleDelay
	}
	for ; attempt > 1 && d < x.opts.MaxDelay; attempt-- {
		d *= 2
	}
	d = min(d, x.opts.MaxDelay)
	return d/2 + time.Duration(x.opts.Rand()*float64(d/2))
}

func (x *bucket) take(class objstore.Class) bool {
	cost := x.opts.RetryCost
	if class == objstore.ClassThrottled {
		cost = x.opts.ThrottleCost
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.tokens < cost {
		return false
	}
	x.mu.tokens -= cost
	return true
}

func (x *bucket) refill() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.tokens = min(x.mu.tokens+1, x.opts.Quota)
}

// Get implements objstore.Reader.
func (x *bucket) Get(ctx context.Context, key string, off, length int64) (data []byte, err error) {
	for r := x.begin("get"); ; {
		if data, err = x.b.Get(ctx, key, off, length); !r.again(ctx, err) {
			return data, err
		}
	}
}

// Head implements objstore.Reader.
func (x *bucket) Head(ctx context.Context, key string) (info objstore.Info, err error) {
	for r := x.begin("head"); ; {
		if info, err = x.b.Head(ctx, key); !r.again(ctx, err) {
			return info, err
		}
	}
}

// Put implements objstore.Writer.
func (x *bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	for r := x.begin("put"); ; {
		info, err := x.b.Put(ctx, key, body)
		if r.attempt > 0 && errors.Is(err, objstore.ErrExists) {
			return x.ownPut(ctx, key, body, err)
		}
		if !r.again(ctx, err) {
			return info, err
		}
	}
}

// ownPut decides whether the object that exists is what an earlier attempt wrote. A checksum that the store does not know
// proves nothing, so exists stays the answer.
func (x *bucket) ownPut(ctx context.Context, key string, body objstore.Body, exists error) (objstore.Info, error) {
	info, err := x.Head(ctx, key)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %q: whose object is it: %w", key, err)
	}
	if info.Size != body.Size || !info.HasCRC || info.CRC32C != body.CRC32C {
		return objstore.Info{}, exists
	}
	return info, nil
}

// List implements objstore.Lister. After an error it goes on behind the last key that it yielded; progress resets the
// count of attempts.
func (x *bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for r := x.begin("list"); ; {
			var failed error
			for info, err := range x.b.List(ctx, prefix, startAfter) {
				if err != nil {
					failed = err
					break
				}
				startAfter = info.Key
				r.attempt, r.start = 0, x.opts.Clock.Now()
				if !yield(info, nil) {
					return
				}
			}
			if r.again(ctx, failed) {
				continue
			}
			if failed != nil {
				yield(objstore.Info{}, failed)
			}
			return
		}
	}
}

// Delete implements objstore.Deleter. Deleting what an earlier attempt deleted is no error.
func (x *bucket) Delete(ctx context.Context, keys ...string) error {
	for r := x.begin("delete"); ; {
		if err := x.b.Delete(ctx, keys...); !r.again(ctx, err) {
			return err
		}
	}
}

// AbortUploads implements objstore.Deleter. The answer counts all attempts.
func (x *bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	total := 0
	for r := x.begin("abort_uploads"); ; {
		n, err := x.b.AbortUploads(ctx, prefix, before)
		total += n
		if !r.again(ctx, err) {
			return total, err
		}
	}
}

// Close implements io.Closer.
func (x *bucket) Close() error { return x.b.Close() }
