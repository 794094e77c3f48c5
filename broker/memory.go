package broker

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent trades CPU for memory: nearly all of the heap is record bytes, which cost the collector nothing to scan.
	gcPercent = 50

	idleCheckEvery  = 5 * time.Second
	idleAllocBytes  = 2 << 20  // less than this between two checks is idle
	idleGarbageHeap = 24 << 20 // a smaller heap is not worth a collection
)

// returnMemory gives memory back to the system once the broker has become idle: the garbage of the last burst, which the runtime
// would keep for minutes, and the blocks that it read. It does so once per burst.
func (b *Broker) returnMemory(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	var last uint64
	collected := false
	for sleep(ctx, b.seams.Clock, nil, idleCheckEvery) {
		metrics.Read(sample)
		allocs, heap := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		if allocs-last >= idleAllocBytes {
			collected = false
		} else if !collected && heap > idleGarbageHeap {
			b.hot.ShrinkCache()
			debug.FreeOSMemory()
			collected = true
		}
		last = allocs
	}
}
