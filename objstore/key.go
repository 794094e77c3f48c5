package objstore

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of keys that every tested store keeps (facts: MinIO, versitygw and file systems limit a segment to 255 bytes,
// S3 limits the whole key to 1,024).
const (
	MaxKeyBytes        = 1024
	MaxKeySegmentBytes = 255
)

// CheckKey answers ErrInvalid for a key that some store would refuse or confuse: empty, longer than MaxKeyBytes, with an
// empty, "." or ".." segment, with a segment longer than MaxKeySegmentBytes, not UTF-8, or with control characters.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyBytes || !utf8.ValidString(key) {
		return fmt.Errorf("key %q of %d bytes: %w", key, len(key), ErrInvalid)
	}
	for seg := range strings.SplitSeq(key, "/") {
		if seg == "" || seg == "." || seg == ".." || len(seg) > MaxKeySegmentBytes {
			return fmt.Errorf("key %q: segment %q of %d bytes: %w", key, seg, len(seg), ErrInvalid)
		}
	}
	if i := strings.IndexFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }); i >= 0 {
		return fmt.Errorf("key %q: control character at %d: %w", key, i, ErrInvalid)
	}
	return nil
}

// CheckPut answers ErrInvalid for a key or a body that Put must refuse.
func CheckPut(key string, body Body) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if body.ReaderAt == nil || body.Size <= 0 {
		return fmt.Errorf("body of %q has %d bytes: %w", key, body.Size, ErrInvalid)
	}
	return nil
}

// CheckRange answers ErrInvalid for a negative offset, and ErrRange where [off, off+length) does not lie within an object
// of size bytes. It returns the length in bytes with a negative one resolved.
func CheckRange(key string, size, off, length int64) (int64, error) {
	if off < 0 {
		return 0, fmt.Errorf("get %q at %d: %w", key, off, ErrInvalid)
	}
	if length < 0 {
		length = size - off
	}
	if length <= 0 || off > size-length {
		return 0, fmt.Errorf("get %q [%d, %d) of %d bytes: %w", key, off, off+length, size, ErrRange)
	}
	return length, nil
}
