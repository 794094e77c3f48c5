package objstore

import (
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"iter"
	"time"
)

// Info describes an object.
type Info struct {
	Key     string
	Size    int64  // bytes
	CRC32C  uint32 // Castagnoli checksum of the whole object; valid where HasCRC
	HasCRC  bool   // List never promises it; Put and Head do as far as the store keeps checksums
	ModTime time.Time
}

// Reader reads objects.
type Reader interface {
	// Get returns length bytes from off (length < 0: to the end). Fewer bytes than asked for is an error: ErrRange where
	// the object ends before off+length, else a transient one. A range must not be empty: off at the end of the object is
	// ErrRange too. Get of length 0 answers no bytes and asks the store nothing. The caller owns the result.
	Get(ctx context.Context, key string, off, length int64) ([]byte, error)
	// Head describes the object, or answers ErrNotFound.
	Head(ctx context.Context, key string) (Info, error)
}

// Body is what is written: its size and CRC-32C are known before the first byte is sent. It can be read more than once.
type Body struct {
	io.ReaderAt
	Size   int64 // bytes, at least 1: some stores refuse empty objects
	CRC32C uint32
}

// BodyOf wraps bytes that the caller does not change until Put has returned.
func BodyOf(b []byte) Body {
	return Body{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), CRC32C: Checksum(b)}
}

// Checksum is the CRC-32C (Castagnoli) of b, as Info and Body carry it.
func Checksum(b []byte) uint32 { return UpdateChecksum(0, b) }

// UpdateChecksum continues a Checksum with more bytes.
func UpdateChecksum(crc uint32, b []byte) uint32 {
	return crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), b)
}

// Writer writes objects, each once.
type Writer interface {
	// Put writes the object and answers once it is durable and its size and checksum were verified against the store's
	// answer. Where the key exists it answers ErrExists as far as the store can tell (correctness never rests on that).
	// After any other error the object may or may not exist, but never in part. A key or body that the seam forbids, or
	// a body that cannot be read, is ErrInvalid; bytes that do not match Body.CRC32C are ErrChecksum.
	Put(ctx context.Context, key string, body Body) (Info, error)
}

// Lister lists objects.
type Lister interface {
	// List yields objects whose key starts with prefix, in key order (bytewise), from the first key > startAfter. After an
	// error it yields nothing more.
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error]
}

// Deleter deletes objects. Only package compaction is given one (I6).
type Deleter interface {
	// Delete removes the objects; a missing one is no error. After an error some of them may be gone.
	Delete(ctx context.Context, keys ...string) error
	// AbortUploads ends multipart uploads below prefix that began before the given time and answers how many.
	AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Bucket is all of it. Wrappers (prefix, retry, metrics, fault) are Buckets, so they stack; closing a wrapper closes what
// it wraps. Safe for concurrent use.
type Bucket interface {
	Reader
	Writer
	Lister
	Deleter
	io.Closer
}
