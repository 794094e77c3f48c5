package cache

import (
	"context"
	"testing"

	"github.com/varvelog/varve/objstore/objtest"
)

// BenchmarkReadAt reads 64 KiB at a time through 16 MiB, from each tier.
func BenchmarkReadAt(b *testing.B) {
	const size, step = 16 << 20, 64 << 10
	object := objtest.Pattern(1, size)
	for name, opts := range map[string]Options{
		"memory": {MemoryBytes: 64 << 20},
		"disk":   {DiskBytes: 64 << 20, Dir: b.TempDir()},
		"bucket": {},
	} {
		b.Run(name, func(b *testing.B) {
			c := newCache(b, newSource(bucketWith(b, map[string][]byte{"k": object})), opts)
			read := func(off int64) {
				if _, err := c.ReadAt(context.Background(), "k", size, off, step); err != nil {
					b.Fatal(err)
				}
			}
			for off := int64(0); off < size; off += step {
				read(off)
			}
			settle(b, c)
			b.SetBytes(step)
			off := int64(0)
			for b.Loop() {
				read(off)
				off = (off + step) % size
			}
		})
	}
}
