package mem

import (
	"fmt"
	"slices"

	"github.com/varvelog/varve/objstore"
)

// Trace returns the operations so far, in order, one line each: the operation, its arguments, and the class of its outcome.
func (b *Bucket) Trace() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.mu.trace)
}

// ResetTrace forgets the operations so far.
func (b *Bucket) ResetTrace() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.trace = nil
}

// Keys returns the keys of all objects, sorted, without a line in the trace.
func (b *Bucket) Keys() []string {
	var keys []string
	for _, i := range b.snapshot("", "") {
		keys = append(keys, i.Key)
	}
	return keys
}

// Corrupt flips one bit of the object's byte at off, as a store that loses data would. It reports whether there is one.
func (b *Bucket) Corrupt(key string, off int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.mu.objects[key]
	if !ok || off < 0 || off >= o.info.Size {
		return false
	}
	o.data = slices.Clone(o.data)
	o.data[off] ^= 1
	b.mu.objects[key] = o
	return true
}

func (b *Bucket) record(err error, format string, args ...any) {
	line := fmt.Sprintf(format, args...) + ": " + string(objstore.Classify(err))
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.trace) >= b.opts.TraceOps {
		b.mu.trace = b.mu.trace[1:]
	}
	b.mu.trace = append(b.mu.trace, line)
}
