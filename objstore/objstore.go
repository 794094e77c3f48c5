// Package objstore is the bucket seam: what a broker needs of an object store, in narrow interfaces.
package objstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// The expected errors. Every other error is transient or unknown: the caller may retry within its budget.
var (
	ErrNotFound  = errors.New("object not found")
	ErrExists    = errors.New("object exists already")
	ErrThrottled = errors.New("object store throttles")
	ErrDenied    = errors.New("object store denies access")
)

// Info describes an object.
type Info struct {
	Key     string
	Size    int64
	CRC32C  uint32 // valid where HasCRC
	HasCRC  bool
	ModTime time.Time
}

// Reader reads objects.
type Reader interface {
	// Get returns length bytes from off (length < 0: to the end). Fewer bytes than asked for is an error.
	Get(ctx context.Context, key string, off, length int64) ([]byte, error)
	Head(ctx context.Context, key string) (Info, error)
}

// Body is what is written: its size and CRC-32C are known before the first byte is sent. It can be read more than once.
type Body struct {
	io.ReaderAt
	Size   int64
	CRC32C uint32
}

// Writer writes objects, each once.
type Writer interface {
	// Put writes the object and answers once it is durable and its size and checksum were verified against the store's
	// answer. Where the key exists it answers ErrExists as far as the store can tell (correctness never rests on that).
	Put(ctx context.Context, key string, body Body) (Info, error)
}

// Lister lists objects.
type Lister interface {
	// List yields objects whose key starts with prefix, in key order, from the first key > startAfter.
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error]
}

// Deleter deletes objects. Only package compaction is given one (I6).
type Deleter interface {
	// Delete removes the objects; a missing one is no error.
	Delete(ctx context.Context, keys ...string) error
	// AbortUploads ends multipart uploads below prefix that began before the given time and answers how many.
	AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Bucket is all of it. Wrappers (prefix, retry, metrics, fault, trace) are Buckets, so they stack.
type Bucket interface {
	Reader
	Writer
	Lister
	Deleter
	io.Closer
}
