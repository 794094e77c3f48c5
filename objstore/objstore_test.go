package objstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

func TestClassify(t *testing.T) {
	for want, errs := range map[Class][]error{
		ClassOK:        {nil},
		ClassNotFound:  {ErrNotFound},
		ClassExists:    {ErrExists},
		ClassThrottled: {ErrThrottled},
		ClassDenied:    {ErrDenied},
		ClassInvalid:   {ErrInvalid, ErrRange},
		ClassCorrupt:   {ErrChecksum, base.MarkCorruption(errors.New("x"))},
		ClassCanceled:  {context.Canceled},
		ClassTimeout:   {context.DeadlineExceeded},
		ClassTransient: {errors.New("connection reset")},
	} {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("get %q: %w", "k", err)
			}
			if got := Classify(err); got != want {
				t.Errorf("%v: %s, want %s", err, got, want)
			}
		}
		retryable := want == ClassThrottled || want == ClassTimeout || want == ClassTransient
		if want.Retryable() != retryable {
			t.Errorf("%s: retryable %v", want, !retryable)
		}
	}
}

func TestCheckRange(t *testing.T) {
	f := func(size, off, length, want int64, wantErr error) {
		t.Helper()
		if got, err := CheckRange("k", size, off, length); got != want || !errors.Is(err, wantErr) {
			t.Errorf("[%d, +%d) of %d: %d, %v", off, length, size, got, err)
		}
	}
	f(10, 0, 10, 10, nil)
	f(10, 0, -1, 10, nil)
	f(10, 9, -5, 1, nil)
	f(10, 9, 1, 1, nil)
	f(10, 10, -1, 0, ErrRange)
	f(10, 11, -1, 0, ErrRange)
	f(10, 5, 6, 0, ErrRange)
	f(10, 0, 0, 0, ErrRange)
	f(10, -1, 5, 0, ErrInvalid)
	f(10, 5, 1<<63-1, 0, ErrRange)
	f(10, 1<<63-1, 1<<63-1, 0, ErrRange)
}

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "a/b", ".a", "a..b", strings.Repeat("x", 255), "ä/日本"} {
		if err := CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "a/./b", "a/..", "\x7f", strings.Repeat("x", 256), strings.Repeat("x/", 512) + "x"} {
		if err := CheckKey(key); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
}
