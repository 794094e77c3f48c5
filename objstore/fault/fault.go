// Package fault wraps a bucket so that chosen operations fail, take long, or lose their reply: the test twin of a bad day.
//
// A rule sees every operation before it is performed. A lost reply performs the operation and answers an error, so the caller
// cannot know; that is what a store does whose connection breaks after the request was read.
package fault

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
)

// ErrInjected is what injected faults answer where the rule names no other error. It is of the transient class.
var ErrInjected = errors.New("injected bucket fault")

// Kind is an operation of objstore.Bucket.
type Kind string

// The operations.
const (
	Get    Kind = "get"
	Head   Kind = "head"
	Put    Kind = "put"
	List   Kind = "list"
	Delete Kind = "delete"
	Abort  Kind = "abort"
)

// Op is one operation on the bucket.
type Op struct {
	N    int // the first operation is 1
	Kind Kind
	Key  string // or the prefix; of Delete the first key
}

// Effect is what happens to an operation. The zero Effect is none.
type Effect struct {
	// Delay passes on the clock before the operation is performed; the context ends it.
	Delay time.Duration
	// Err is answered instead of performing the operation, or after it where LoseReply is set.
	Err error
	// LoseReply performs the operation and answers Err (ErrInjected where nil).
	LoseReply bool
}

// Rule decides the effect of an operation. Rules are called one at a time, in the order in which operations begin.
type Rule func(Op) Effect

// FailNth fails the n-th operation with ErrInjected; it does not happen.
func FailNth(n int) Rule { return When(Nth(n), Effect{Err: ErrInjected}) }

// LoseReplyNth performs the n-th operation and answers ErrInjected.
func LoseReplyNth(n int) Rule { return When(Nth(n), Effect{LoseReply: true}) }

// Nth matches the n-th operation.
func Nth(n int) func(Op) bool { return func(o Op) bool { return o.N == n } }

// OfKind matches operations of the given kinds.
func OfKind(kinds ...Kind) func(Op) bool {
	return func(o Op) bool {
		for _, k := range kinds {
			if o.Kind == k {
				return true
			}
		}
		return false
	}
}

// When applies the effect to the operations that match.
func When(match func(Op) bool, e Effect) Rule {
	return func(o Op) Effect {
		if match(o) {
			return e
		}
		return Effect{}
	}
}

// Randomly applies the effect with probability p; the seed decides where.
func Randomly(seed uint64, p float64, e Effect) Rule {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(Op) Effect {
		if rng.Float64() < p {
			return e
		}
		return Effect{}
	}
}

// Bucket is a bucket with faults. Safe for concurrent use.
type Bucket struct {
	b     objstore.Bucket
	clock clock.Clock
	mu    struct {
		sync.Mutex
		n     int
		rules []Rule
	}
}

var _ objstore.Bucket = (*Bucket)(nil)

// Wrap returns b with the rules; the first one with an effect wins. Delays pass on c; nil is clock.Real.
func Wrap(b objstore.Bucket, c clock.Clock, rules ...Rule) *Bucket {
	if c == nil {
		c = clock.Real{}
	}
	f := &Bucket{b: b, clock: c}
	f.mu.rules = rules
	return f
}

// SetRules replaces the rules. The count of operations goes on.
func (f *Bucket) SetRules(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules = rules
}

// Ops returns how many operations there were.
func (f *Bucket) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.n
}

func (f *Bucket) decide(kind Kind, key string) (Op, Effect) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.n++
	op := Op{N: f.mu.n, Kind: kind, Key: key}
	for _, rule := range f.mu.rules {
		if e := rule(op); e != (Effect{}) {
			return op, e
		}
	}
	return op, Effect{}
}

// do performs an operation under its effect.
func do[T any](ctx context.Context, f *Bucket, kind Kind, key string, perform func() (T, error)) (T, error) {
	var none T
	op, e := f.decide(kind, key)
	if err := f.delay(ctx, e.Delay); err != nil {
		return none, fmt.Errorf("%s %q: %w", kind, key, err)
	}
	if e.LoseReply {
		_, err := perform()
		return none, fmt.Errorf("operation %d (%s %q), reply lost: %w", op.N, kind, key, errors.Join(orInjected(e.Err), err))
	}
	if e.Err != nil {
		return none, fmt.Errorf("operation %d (%s %q): %w", op.N, kind, key, e.Err)
	}
	return perform()
}

func orInjected(err error) error {
	if err == nil {
		return ErrInjected
	}
	return err
}

func (f *Bucket) delay(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := f.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements objstore.Reader.
func (f *Bucket) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	return do(ctx, f, Get, key, func() ([]byte, error) { return f.b.Get(ctx, key, off, length) })
}

// Head implements objstore.Reader.
func (f *Bucket) Head(ctx context.Context, key string) (objstore.Info, error) {
	return do(ctx, f, Head, key, func() (objstore.Info, error) { return f.b.Head(ctx, key) })
}

// Put implements objstore.Writer.
func (f *Bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	return do(ctx, f, Put, key, func() (objstore.Info, error) { return f.b.Put(ctx, key, body) })
}

// List implements objstore.Lister. A lost reply yields the first half of the objects before the error.
func (f *Bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		_, e := f.decide(List, prefix)
		err := f.delay(ctx, e.Delay)
		if err == nil && !e.LoseReply {
			err = e.Err
		}
		if err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
			return
		}
		if !e.LoseReply {
			f.b.List(ctx, prefix, startAfter)(yield)
			return
		}
		var infos []objstore.Info
		for i, err := range f.b.List(ctx, prefix, startAfter) {
			if err == nil {
				infos = append(infos, i)
			}
		}
		for _, i := range infos[:len(infos)/2] {
			if !yield(i, nil) {
				return
			}
		}
		yield(objstore.Info{}, fmt.Errorf("list %q, reply cut: %w", prefix, orInjected(e.Err)))
	}
}

// Delete implements objstore.Deleter.
func (f *Bucket) Delete(ctx context.Context, keys ...string) error {
	key := ""
	if len(keys) > 0 {
		key = keys[0]
	}
	_, err := do(ctx, f, Delete, key, func() (struct{}, error) { return struct{}{}, f.b.Delete(ctx, keys...) })
	return err
}

// AbortUploads implements objstore.Deleter.
func (f *Bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	return do(ctx, f, Abort, prefix, func() (int, error) { return f.b.AbortUploads(ctx, prefix, before) })
}

// Close implements io.Closer.
func (f *Bucket) Close() error { return f.b.Close() }
