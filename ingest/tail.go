package ingest

import (
	"slices"
	"sort"
	"sync"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// batchQueue holds synced batches of one partition in offset order, without gaps. The partition's lock guards it.
type batchQueue struct {
	batches []record.Batch
	head    int // batches[:head] are evicted
}

func (q *batchQueue) push(b record.Batch) { q.batches = append(q.batches, b) }

// popTo lets go of the batches that begin at off or before it.
func (q *batchQueue) popTo(off base.Offset) {
	for q.head < len(q.batches) && q.batches[q.head].BaseOffset() <= off {
		q.batches[q.head] = nil
		q.head++
	}
	if q.head == len(q.batches) || q.head >= 64 && q.head*2 >= len(q.batches) {
		q.batches = append([]record.Batch(nil), q.batches[q.head:]...)
		q.head = 0
	}
}

// end is the offset behind the newest batch, and false where there is none.
func (q *batchQueue) end() (base.Offset, bool) {
	if q.head == len(q.batches) {
		return 0, false
	}
	return q.batches[len(q.batches)-1].NextOffset(), true
}

// start is the first offset that is held, and false where nothing is.
func (q *batchQueue) start() (base.Offset, bool) {
	if q.head == len(q.batches) {
		return 0, false
	}
	return q.batches[q.head].BaseOffset(), true
}

// holds reports whether the batch of an offset is held: rows that a follower's were synced with, and no batch brought, are not.
func (q *batchQueue) holds(off base.Offset) bool {
	start, ok := q.start()
	end, _ := q.end()
	return ok && start <= off && off < end
}

// read returns batches from the one that contains from, below upTo, up to maxBytes but at least one.
func (q *batchQueue) read(from, upTo base.Offset, maxBytes int) []record.Batch {
	live := q.batches[q.head:]
	i := sort.Search(len(live), func(i int) bool { return live[i].NextOffset() > from })
	var out []record.Batch
	for n := 0; i < len(live) && live[i].NextOffset() <= upTo; i++ {
		if n += len(live[i]); n > maxBytes && len(out) > 0 {
			break
		}
		out = append(out, live[i])
	}
	return out
}

// batchOverheadBytes is what a batch in the tail costs beside its bytes.
const batchOverheadBytes = 64

// tail bounds what all partitions' queues hold together: first committed, first evicted. Frames of many batches are shared
// by their slices and go together, since their batches were committed together.
type tail struct {
	limit int64
	mu    struct {
		sync.Mutex
		bytes int64
		fifo  []tailEntry
		head  int
	}
}

// tailEntry is a batch that was pushed to p's queue, and may be gone from there: then it lets go of nothing.
type tailEntry struct {
	p     *Partition
	first base.Offset
	size  int64
}

func newTail(limit int64) *tail { return &tail{limit: limit} }

// add counts a batch that was pushed to p's queue and evicts the oldest batches of the broker above the limit.
func (t *tail) add(p *Partition, b record.Batch) {
	size := int64(len(b)) + batchOverheadBytes
	t.mu.Lock()
	t.mu.fifo = append(t.mu.fifo, tailEntry{p, b.BaseOffset(), size})
	t.mu.bytes += size
	var evict []tailEntry
	for t.mu.bytes > t.limit && t.mu.head < len(t.mu.fifo) {
		e := &t.mu.fifo[t.mu.head]
		evict = append(evict, *e)
		t.mu.bytes -= e.size
		*e = tailEntry{}
		t.mu.head++
	}
	if t.mu.head > 1024 && t.mu.head*2 > len(t.mu.fifo) {
		t.mu.fifo = append([]tailEntry(nil), t.mu.fifo[t.mu.head:]...)
		t.mu.head = 0
	}
	t.mu.Unlock()
	for _, e := range evict {
		e.p.mu.Lock()
		e.p.mu.tail.popTo(e.first)
		e.p.mu.Unlock()
	}
}

// dropPartition lets go of a deleted partition's batches.
func (t *tail) dropPartition(p *Partition) {
	t.mu.Lock()
	live := slices.DeleteFunc(t.mu.fifo[t.mu.head:], func(e tailEntry) bool {
		if e.p == p {
			t.mu.bytes -= e.size
		}
		return e.p == p
	})
	t.mu.fifo = t.mu.fifo[:t.mu.head+len(live)]
	t.mu.Unlock()
	p.mu.Lock()
	p.mu.tail = batchQueue{}
	p.mu.Unlock()
}

func (t *tail) size() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.bytes
}
