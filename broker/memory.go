package broker

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	idleCheckEvery  = 5 * time.Second
	idleAllocBytes  = 2 << 20  // less than this between two checks is idle
	idleGarbageHeap = 24 << 20 // a smaller heap is not worth a collection
)

// returnMemory gives the heap back to the system once the broker has become idle: the runtime would keep the garbage of the
// last burst for minutes. It collects once per burst.
func (b *Broker) returnMemory(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	var last uint64
	collected := false
	for {
		t := b.seams.Clock.NewTimer(idleCheckEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		metrics.Read(sample)
		allocs, heap := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		if allocs-last >= idleAllocBytes {
			collected = false
		} else if !collected && heap > idleGarbageHeap {
			debug.FreeOSMemory()
			collected = true
		}
		last = allocs
	}
}
