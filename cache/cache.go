// Package cache keeps blocks of immutable remote objects in memory and on local disk: objstore.Reader in, ranges out.
package cache

import "context"

// Cache serves ranges of immutable objects. Safe for concurrent use.
type Cache struct{}

// ReadAt returns length bytes at off of the object, whose total size the caller knows from the manifest. One download per
// block whoever asks. The result must not be modified.
func (c *Cache) ReadAt(ctx context.Context, key string, objectSize, off int64, length int) ([]byte, error) {
	panic("not built")
}

// Prefetch starts loading the blocks of [off, off+length) in the background as far as the budget allows.
func (c *Cache) Prefetch(key string, objectSize, off, length int64) { panic("not built") }
