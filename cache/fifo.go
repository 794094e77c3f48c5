package cache

import "container/list"

// tier is the index of one tier: what it holds, what is reserved, and what goes first. It is the S3-FIFO policy (Yang et al.,
// "FIFO queues are all you need for cache eviction", SOSP 2023): new blocks enter a small queue; those that were read again
// before they reach its end, or that were evicted not long ago, go to the main one. So one long scan does not flush what
// others read repeatedly. Guarded by Cache.mu.
type tier[V any] struct {
	limit    int64 // bytes
	used     int64 // bytes of the entries
	reserved int64 // bytes
	objects  map[objectID]map[int64]*entry[V]

	small, main list.List // of *entry[V]; the front is the newest
	smallBytes  int64

	ghosts    map[blockID]struct{} // evicted from small
	ghostRing []blockID            // the same, oldest first from ghostAt
	ghostAt   int
}

type entry[V any] struct {
	id    blockID
	bytes int64
	value V
	reads int // since it entered its queue, at most maxReads
	main  bool
	elem  *list.Element
}

const (
	maxReads = 3
	// smallShare is the divisor for the small queue: a quarter, so that read-ahead is not evicted before it is read.
	smallShare = 4
)

func newTier[V any](limit, blockBytes int64) tier[V] {
	return tier[V]{
		limit: limit, objects: map[objectID]map[int64]*entry[V]{},
		ghosts: map[blockID]struct{}{}, ghostRing: make([]blockID, min(limit/blockBytes, 1<<16)+1),
	}
}

// get returns the block's entry, or nil, and counts the read.
func (t *tier[V]) get(id blockID) *entry[V] {
	e := t.objects[id.object][id.index]
	if e != nil {
		e.reads = min(e.reads+1, maxReads)
	}
	return e
}

func (t *tier[V]) has(id blockID) bool { return t.objects[id.object][id.index] != nil }

// reserve makes room for n bytes and returns what it evicted. Where there can be no room, ok is false.
func (t *tier[V]) reserve(n int64) (evicted []*entry[V], ok bool) {
	if t.reserved+n > t.limit {
		return nil, false
	}
	for t.used+t.reserved+n > t.limit {
		evicted = append(evicted, t.evict())
	}
	t.reserved += n
	return evicted, true
}

// release gives n reserved bytes back.
func (t *tier[V]) release(n int64) { t.reserved -= n }

// add turns n reserved bytes into an entry. A block that is there already stays, and add reports false.
func (t *tier[V]) add(id blockID, n int64, v V) bool {
	t.release(n)
	if t.has(id) {
		return false
	}
	e := &entry[V]{id: id, bytes: n, value: v}
	if t.objects[id.object] == nil {
		t.objects[id.object] = map[int64]*entry[V]{}
	}
	t.objects[id.object][id.index] = e
	t.used += n
	if _, ghost := t.ghosts[id]; ghost {
		delete(t.ghosts, id)
		t.pushMain(e)
	} else {
		e.elem = t.small.PushFront(e)
		t.smallBytes += n
	}
	return true
}

// evict removes the entry that goes first. There must be one.
func (t *tier[V]) evict() *entry[V] {
	for {
		if t.small.Len() > 0 && (t.smallBytes > t.limit/smallShare || t.main.Len() == 0) {
			e := t.small.Back().Value.(*entry[V])
			if e.reads > 1 {
				t.unlink(e)
				t.pushMain(e)
				continue
			}
			t.remove(e)
			t.haunt(e.id)
			return e
		}
		e := t.main.Back().Value.(*entry[V])
		if e.reads > 0 {
			e.reads--
			t.main.MoveToFront(e.elem)
			continue
		}
		t.remove(e)
		return e
	}
}

func (t *tier[V]) pushMain(e *entry[V]) {
	e.main, e.reads = true, 0
	e.elem = t.main.PushFront(e)
}

func (t *tier[V]) unlink(e *entry[V]) {
	if e.main {
		t.main.Remove(e.elem)
		return
	}
	t.small.Remove(e.elem)
	t.smallBytes -= e.bytes
}

func (t *tier[V]) remove(e *entry[V]) {
	t.unlink(e)
	t.used -= e.bytes
	blocks := t.objects[e.id.object]
	delete(blocks, e.id.index)
	if len(blocks) == 0 {
		delete(t.objects, e.id.object)
	}
}

// removeObject removes the entries of an object and returns them.
func (t *tier[V]) removeObject(object objectID) []*entry[V] {
	var gone []*entry[V]
	for _, e := range t.objects[object] {
		gone = append(gone, e)
	}
	for _, e := range gone {
		t.remove(e)
	}
	return gone
}

// haunt remembers an evicted block for as long as about as many others are evicted as the tier holds.
func (t *tier[V]) haunt(id blockID) {
	delete(t.ghosts, t.ghostRing[t.ghostAt])
	t.ghostRing[t.ghostAt] = id
	t.ghosts[id] = struct{}{}
	t.ghostAt = (t.ghostAt + 1) % len(t.ghostRing)
}
