package fault

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/mem"
)

func TestNth(t *testing.T) {
	store := mem.New(mem.Options{})
	f := Wrap(store, nil, FailNth(1), LoseReplyNth(3))
	put := func(key string) error {
		_, err := f.Put(t.Context(), key, objstore.BodyOf([]byte("x")))
		return err
	}
	errs := []error{put("a"), put("b"), put("c"), put("d")}
	if !errors.Is(errs[0], ErrInjected) || errs[1] != nil || !errors.Is(errs[2], ErrInjected) || errs[3] != nil {
		t.Errorf("errors: %v", errs)
	}
	if keys := store.Keys(); !slices.Equal(keys, []string{"b", "c", "d"}) {
		t.Errorf("keys: %q: the failed put must not happen, the one without a reply must", keys)
	}
}

func TestRulesSeeOperations(t *testing.T) {
	denied := When(OfKind(Get, Delete), Effect{Err: objstore.ErrDenied})
	f := Wrap(mem.New(mem.Options{}), nil, denied)
	if _, err := f.Put(t.Context(), "k", objstore.BodyOf([]byte("x"))); err != nil {
		t.Error(err)
	}
	if _, err := f.Get(t.Context(), "k", 0, 1); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("get: %v", err)
	}
	if err := f.Delete(t.Context(), "k"); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
	f.SetRules()
	if err := f.Delete(t.Context(), "k"); err != nil {
		t.Errorf("delete without rules: %v", err)
	}
	if f.Ops() != 4 {
		t.Errorf("%d operations", f.Ops())
	}
}

func TestRandomlyRepeats(t *testing.T) {
	f := func(seed uint64) (failed []int) {
		b := Wrap(mem.New(mem.Options{}), nil, Randomly(seed, 0.3, Effect{Err: ErrInjected}))
		for i := range 100 {
			if _, err := b.Head(t.Context(), "k"); errors.Is(err, ErrInjected) {
				failed = append(failed, i)
			}
		}
		return failed
	}
	a := f(1)
	if !slices.Equal(a, f(1)) || slices.Equal(a, f(2)) || len(a) < 10 || len(a) > 60 {
		t.Errorf("failed: %v", a)
	}
}

func TestDelayPassesOnTheClock(t *testing.T) {
	manual := clock.NewManual(time.Unix(0, 0))
	f := Wrap(mem.New(mem.Options{}), manual, When(Nth(1), Effect{Delay: time.Hour}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Head(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("head: %v", err)
	}
	f.SetRules(When(Nth(2), Effect{Delay: time.Hour}))
	done := make(chan error, 1)
	go func() {
		_, err := f.Head(t.Context(), "k")
		done <- err
	}()
	for {
		select {
		case err := <-done:
			if !errors.Is(err, objstore.ErrNotFound) {
				t.Errorf("head: %v", err)
			}
			return
		default:
			manual.Advance(time.Hour)
		}
	}
}
