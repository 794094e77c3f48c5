package tiertest

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/objstore"
)

// ErrInjected is what a failed operation answers.
var ErrInjected = errors.New("injected fault")

// Mode says what happens at the chosen operation.
type Mode uint8

// The modes. After a crash every further operation fails without effect.
const (
	FailBefore  Mode = iota // the operation fails and has no effect
	FailAfter               // it takes effect and its reply is lost
	CrashBefore             // as FailBefore, and the process is gone
	CrashAfter              // as FailAfter, and the process is gone
	Pass                    // nothing goes wrong: for a Hook
)

// Modes lists those that go wrong.
var Modes = []Mode{FailBefore, FailAfter, CrashBefore, CrashAfter}

// String names the mode in test names.
func (m Mode) String() string {
	return [...]string{"fail", "lost-reply", "crash-before", "crash-after", "pass"}[m]
}

// Faults counts the operations of bucket and metadata KV together and breaks one of them. The zero value breaks none.
type Faults struct {
	mu struct {
		sync.Mutex
		armed   bool
		mode    Mode
		at, n   int
		crashed bool
		down    bool
		refused int
		ops     []string
		hook    func()
		due     bool // the chosen operation came
	}
}

// Hook makes fn run at the chosen operation: before it where it does not happen, else after it, and before its reply.
// Arm comes first. What fn does through the same Faults is not counted.
func (f *Faults) Hook(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.hook = fn
}

// hooked takes the hook if it is its turn.
func (f *Faults) hooked() func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn := f.mu.hook
	if !f.mu.due || fn == nil {
		return func() {}
	}
	f.mu.hook = nil
	return func() {
		f.pause(true)
		fn()
		f.pause(false)
	}
}

func (f *Faults) pause(paused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.armed = !paused
}

// Arm makes the n-th operation from now on (from 1) go wrong.
func (f *Faults) Arm(at int, mode Mode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.armed, f.mu.at, f.mu.mode, f.mu.n, f.mu.crashed, f.mu.ops, f.mu.hook, f.mu.due = true, at, mode, 0, false, nil, nil, false
}

// Disarm ends counting and, after a crash, lets operations through again. It reports whether the chosen operation came.
func (f *Faults) Disarm() (hit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.armed, f.mu.crashed = false, false
	return f.mu.n >= f.mu.at
}

// BucketDown makes every operation of the bucket fail, or ends that. It answers how many failed before.
func (f *Faults) BucketDown(down bool) (refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.down = down
	return f.mu.refused
}

// Crashed reports whether the process is gone.
func (f *Faults) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.crashed
}

// Ops lists the operations since Arm.
func (f *Faults) Ops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.ops
}

// step decides about one operation.
func (f *Faults) step(op string) memkv.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.down && strings.HasPrefix(op, "bucket") {
		f.mu.refused++
		return memkv.FailBefore
	}
	if !f.mu.armed {
		return memkv.Proceed
	}
	if f.mu.crashed {
		return memkv.FailBefore
	}
	f.mu.n++
	f.mu.ops = append(f.mu.ops, op)
	if f.mu.n != f.mu.at {
		return memkv.Proceed
	}
	f.mu.due = true
	if f.mu.mode == Pass {
		return memkv.Proceed
	}
	f.mu.crashed = f.mu.mode == CrashBefore || f.mu.mode == CrashAfter
	if f.mu.mode == FailBefore || f.mu.mode == CrashBefore {
		return memkv.FailBefore
	}
	return memkv.FailAfter
}

// Bucket breaks the operations of another one.
type Bucket struct {
	objstore.Bucket
	F *Faults
}

func do[T any](f *Faults, op string, fn func() (T, error)) (T, error) {
	var zero T
	outcome := f.step(op)
	if outcome == memkv.FailBefore {
		f.hooked()()
		return zero, ErrInjected
	}
	hook := f.hooked()
	v, err := fn()
	hook()
	if outcome == memkv.FailAfter {
		return zero, ErrInjected
	}
	return v, err
}

// faultyKV breaks the operations of a KV as one of several brokers sees it.
type faultyKV struct {
	metadata.KV
	f *Faults
}

// Get implements metadata.KV.
func (k faultyKV) Get(ctx context.Context, key string) (kv metadata.KeyValue, ok bool, err error) {
	kv, err = do(k.f, "kv get", func() (metadata.KeyValue, error) {
		var err error
		kv, ok, err = k.KV.Get(ctx, key)
		return kv, err
	})
	return kv, ok && err == nil, err
}

// List implements metadata.KV.
func (k faultyKV) List(ctx context.Context, prefix string) (kvs []metadata.KeyValue, revision int64, err error) {
	kvs, err = do(k.f, "kv list", func() ([]metadata.KeyValue, error) {
		var err error
		kvs, revision, err = k.KV.List(ctx, prefix)
		return kvs, err
	})
	return kvs, revision, err
}

// Txn implements metadata.KV.
func (k faultyKV) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	return do(k.f, "kv txn", func() (metadata.TxnResult, error) { return k.KV.Txn(ctx, cmps, ops) })
}

// Get implements objstore.Reader.
func (b *Bucket) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	return do(b.F, "bucket get", func() ([]byte, error) { return b.Bucket.Get(ctx, key, off, length) })
}

// Head implements objstore.Reader.
func (b *Bucket) Head(ctx context.Context, key string) (objstore.Info, error) {
	return do(b.F, "bucket head", func() (objstore.Info, error) { return b.Bucket.Head(ctx, key) })
}

// Put implements objstore.Writer.
func (b *Bucket) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	return do(b.F, "bucket put", func() (objstore.Info, error) { return b.Bucket.Put(ctx, key, body) })
}

// List implements objstore.Lister.
func (b *Bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[objstore.Info, error] {
	if b.F.step("bucket list") != memkv.Proceed {
		return func(yield func(objstore.Info, error) bool) { yield(objstore.Info{}, ErrInjected) }
	}
	return b.Bucket.List(ctx, prefix, startAfter)
}

// Delete implements objstore.Deleter.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	_, err := do(b.F, "bucket delete", func() (struct{}, error) { return struct{}{}, b.Bucket.Delete(ctx, keys...) })
	return err
}

// AbortUploads implements objstore.Deleter.
func (b *Bucket) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	return do(b.F, "bucket abort", func() (int, error) { return b.Bucket.AbortUploads(ctx, prefix, before) })
}
