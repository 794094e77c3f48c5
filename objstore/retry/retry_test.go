package retry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/fault"
	"github.com/varvelog/varve/objstore/mem"
)

// jumpClock is a clock whose timers fire at once, having moved the time and noted the wait.
type jumpClock struct {
	*clock.Manual
	waits []time.Duration
}

func (j *jumpClock) NewTimer(d time.Duration) *clock.Timer {
	j.waits = append(j.waits, d)
	t := j.Manual.NewTimer(d)
	j.Manual.Advance(d)
	return t
}

type bench struct {
	clock  *jumpClock
	mem    *mem.Bucket
	faulty *fault.Bucket
	b      objstore.Bucket
}

// newBench has jitter at its upper end, so that waits are what the options say.
func newBench(t *testing.T, opts Options, rules ...fault.Rule) *bench {
	t.Helper()
	x := &bench{clock: &jumpClock{Manual: clock.NewManual(time.Unix(0, 0))}, mem: mem.New(mem.Options{})}
	x.faulty = fault.Wrap(x.mem, x.clock, rules...)
	opts.Clock, opts.Rand = x.clock, func() float64 { return 1 }
	b, err := Wrap(x.faulty, opts)
	if err != nil {
		t.Fatal(err)
	}
	x.b = b
	return x
}

// first applies the effect to the first n operations.
func first(n int, e fault.Effect) fault.Rule {
	return fault.When(func(o fault.Op) bool { return o.N <= n }, e)
}

func TestRetriesUntilSuccess(t *testing.T) {
	x := newBench(t, Options{}, first(4, fault.Effect{Err: fault.ErrInjected}))
	if _, err := x.b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	want := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}
	if x.faulty.Ops() != 5 || !slices.Equal(x.clock.waits, want) {
		t.Errorf("%d attempts, waits %v, want 5 and %v", x.faulty.Ops(), x.clock.waits, want)
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	x := newBench(t, Options{Attempts: 3}, first(100, fault.Effect{Err: fault.ErrInjected}))
	if _, err := x.b.Get(t.Context(), "k", 0, 1); !errors.Is(err, fault.ErrInjected) || x.faulty.Ops() != 3 {
		t.Errorf("%d attempts, %v", x.faulty.Ops(), err)
	}
}

func TestTimeIsBounded(t *testing.T) {
	x := newBench(t, Options{Attempts: 100, MaxElapsed: time.Minute}, first(100, fault.Effect{Err: objstore.ErrThrottled}))
	_, err := x.b.Get(t.Context(), "k", 0, 1)
	// 1 + 2 + 4 + 8 + 16 s pass; the next wait of 30 s would end after a minute.
	if !errors.Is(err, objstore.ErrThrottled) || x.faulty.Ops() != 6 || len(x.clock.waits) != 5 {
		t.Errorf("%d attempts, waits %v, %v", x.faulty.Ops(), x.clock.waits, err)
	}
}

func TestFinalErrorsAreNotRetried(t *testing.T) {
	for _, err := range []error{objstore.ErrNotFound, objstore.ErrExists, objstore.ErrDenied, objstore.ErrRange, objstore.ErrInvalid, objstore.ErrChecksum, context.Canceled} {
		x := newBench(t, Options{}, first(100, fault.Effect{Err: err}))
		if _, got := x.b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); !errors.Is(got, err) || x.faulty.Ops() != 1 {
			t.Errorf("%v: %d attempts, %v", err, x.faulty.Ops(), got)
		}
	}
}

func TestLostReplyOfPutIsOurs(t *testing.T) {
	x := newBench(t, Options{}, first(1, fault.Effect{LoseReply: true}))
	info, err := x.b.Put(t.Context(), "k", objstore.BodyOf([]byte("mine")))
	if err != nil || info.Size != 4 || info.CRC32C != objstore.Checksum([]byte("mine")) {
		t.Fatalf("put: %+v, %v", info, err)
	}
	want := []string{"put k size=4: ok", "put k size=4: exists", "head k: ok"}
	if got := x.mem.Trace(); !slices.Equal(got, want) {
		t.Errorf("operations:\n got %q\nwant %q", got, want)
	}
}

func TestForeignObjectIsNotOurs(t *testing.T) {
	x := newBench(t, Options{}, first(1, fault.Effect{Err: fault.ErrInjected}))
	if _, err := x.mem.Put(t.Context(), "k", objstore.BodyOf([]byte("hers"))); err != nil {
		t.Fatal(err)
	}
	if _, err := x.b.Put(t.Context(), "k", objstore.BodyOf([]byte("mine"))); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("put: %v", err)
	}
	// Without an attempt whose outcome is unknown, the same bytes are no excuse.
	if _, err := x.b.Put(t.Context(), "k", objstore.BodyOf([]byte("hers"))); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("put of the same bytes: %v", err)
	}
}

func TestQuotaEndsRetriesForAll(t *testing.T) {
	x := newBench(t, Options{Attempts: 5, Quota: 20, RetryCost: 5}, first(1000, fault.Effect{Err: fault.ErrInjected}))
	for range 10 {
		if _, err := x.b.Head(t.Context(), "k"); !errors.Is(err, fault.ErrInjected) {
			t.Fatal(err)
		}
	}
	if n := x.faulty.Ops(); n != 10+20/5 {
		t.Errorf("%d attempts for 10 requests, want 14", n)
	}
	// Five successes earn one retry.
	x.faulty.SetRules()
	if _, err := x.b.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := x.b.Head(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	x.faulty.SetRules(first(1000, fault.Effect{Err: fault.ErrInjected}))
	before := x.faulty.Ops()
	x.b.Head(t.Context(), "k")
	if n := x.faulty.Ops() - before; n != 2 {
		t.Errorf("%d attempts after five successes, want 2", n)
	}
}

func TestListGoesOnWhereItBroke(t *testing.T) {
	x := newBench(t, Options{Attempts: 2})
	var want []string
	for i := range 20 {
		k := fmt.Sprintf("l/%02d", i)
		want = append(want, k)
		if _, err := x.mem.Put(t.Context(), k, objstore.BodyOf([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	// Each list breaks after half of what is left, four times, with progress in between.
	x.faulty.SetRules(first(4, fault.Effect{LoseReply: true}))
	var got []string
	for i, err := range x.b.List(t.Context(), "l/", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i.Key)
	}
	if !slices.Equal(got, want) || x.faulty.Ops() != 5 {
		t.Errorf("%d lists: %q", x.faulty.Ops(), got)
	}
}

func TestCanceledWaitEndsTheRequest(t *testing.T) {
	manual := clock.NewManual(time.Unix(0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	faulty := fault.Wrap(mem.New(mem.Options{}), manual, func(fault.Op) fault.Effect {
		cancel()
		return fault.Effect{Err: fault.ErrInjected}
	})
	b, err := Wrap(faulty, Options{Clock: manual})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Head(ctx, "k"); !errors.Is(err, fault.ErrInjected) || faulty.Ops() != 1 {
		t.Errorf("%d attempts, %v", faulty.Ops(), err)
	}
}
