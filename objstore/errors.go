package objstore

import (
	"context"
	"errors"

	"github.com/varvelog/varve/internal/base"
)

// The expected errors. Every other error is transient or unknown: the caller may retry within its budget.
var (
	ErrNotFound  = errors.New("object not found")
	ErrExists    = errors.New("object exists already")
	ErrThrottled = errors.New("object store throttles")
	ErrDenied    = errors.New("object store denies access")
	// ErrRange is a Get past the end of an object: the caller believes the object to be longer than it is.
	ErrRange = errors.New("range past the end of the object")
	// ErrInvalid is a key, body or range that the seam forbids. It is a bug of the caller.
	ErrInvalid = errors.New("invalid object store request")
	// ErrChecksum is a body or a reply whose bytes do not match their CRC-32C.
	ErrChecksum = errors.New("object checksum mismatch")
)

// Class is the kind of an error, as metrics label it ("outcome") and retries decide by it.
type Class string

// The classes of errors.
const (
	ClassOK        Class = "ok"
	ClassNotFound  Class = "not_found"
	ClassExists    Class = "exists"
	ClassThrottled Class = "throttled"
	ClassDenied    Class = "denied"
	ClassInvalid   Class = "invalid"  // ErrInvalid and ErrRange
	ClassCorrupt   Class = "corrupt"  // ErrChecksum and marked corruption
	ClassCanceled  Class = "canceled" // the caller's context was cancelled
	ClassTimeout   Class = "timeout"
	ClassTransient Class = "error" // everything else
)

// Classify answers the class of err.
func Classify(err error) Class {
	switch {
	case err == nil:
		return ClassOK
	case errors.Is(err, ErrNotFound):
		return ClassNotFound
	case errors.Is(err, ErrExists):
		return ClassExists
	case errors.Is(err, ErrThrottled):
		return ClassThrottled
	case errors.Is(err, ErrDenied):
		return ClassDenied
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrRange):
		return ClassInvalid
	case errors.Is(err, ErrChecksum), base.IsCorruption(err):
		return ClassCorrupt
	case errors.Is(err, context.Canceled):
		return ClassCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return ClassTimeout
	}
	return ClassTransient
}

// Retryable reports whether the same request may succeed later: the store was slow, throttled, or failed in a way that
// says nothing about the request.
func (c Class) Retryable() bool {
	return c == ClassThrottled || c == ClassTimeout || c == ClassTransient
}
