package history

import (
	"cmp"
	"hash/crc32"
	"slices"
	"sync/atomic"
)

// Look is what one reader saw of all partitions. Take is called from one goroutine; Next, Reaches and Reach may be from others.
type Look struct {
	Name  string
	h     *History
	parts []lookPart
}

type lookPart struct {
	seen        []entry      // by offset
	first, next atomic.Int64 // offsets: of the first, and after the last
}

type entry struct {
	Value
	offset  int64
	sum     uint32 // of key and value
	damaged bool
}

// Look begins another one, at any offset.
func (h *History) Look(name string) *Look {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &Look{Name: name, h: h, parts: make([]lookPart, len(h.mu.parts))}
	h.mu.looks = append(h.mu.looks, l)
	return l
}

// Next is the offset after the last that was seen, 0 where none was.
func (l *Look) Next(partition int32) int64 {
	return l.parts[partition].next.Load()
}

// Take adds the record that the reader got next. Offsets have no gaps, so what follows is known.
func (l *Look) Take(partition int32, offset int64, key, value []byte) {
	p := &l.parts[partition]
	v, ok := Decode(value)
	e := entry{v, offset, crc32.Update(crc32.ChecksumIEEE(key), crc32.IEEETable, value), !ok}
	if !ok {
		l.h.Note(Damaged, partition, offset, "%s read %d bytes that no producer sent", l.Name, len(value))
	}
	if len(p.seen) > 0 {
		switch want := l.Next(partition); {
		case offset < want:
			l.h.Note(NonMonotonicPoll, partition, offset, "%s had read up to %d", l.Name, want-1)
			if before, found := at(p.seen, offset); found && before != e {
				l.h.Note(InconsistentOffset, partition, offset, "%s read %v, then %v", l.Name, before.Value, v)
			}
			return
		case offset > want:
			l.h.Note(SkippedPoll, partition, offset, "%s had read up to %d", l.Name, want-1)
		}
	}
	if len(p.seen) == 0 {
		p.first.Store(offset)
	}
	p.seen = append(p.seen, e)
	p.next.Store(offset + 1)
}

// Reaches tells whether the reader has come to the ends. It may be called while the reader takes.
func (l *Look) Reaches(ends []int64) bool {
	for p, end := range ends {
		if l.parts[p].next.Load() < end {
			return false
		}
	}
	return true
}

// Reach notes where the reader has not come to the ends, one for each partition. A look that began at offset 0 also has to begin there.
func (l *Look) Reach(ends []int64, fromStart bool) {
	for p, end := range ends {
		if next := l.Next(int32(p)); next < end {
			l.h.Note(Unread, int32(p), next, "%s did not get the records up to %d", l.Name, end-1)
		}
		if first := l.parts[p].first.Load(); fromStart && first > 0 {
			l.h.Note(SkippedPoll, int32(p), first, "%s began here, not at 0", l.Name)
		}
	}
}

// Count is how many records were seen.
func (l *Look) Count() (n int) {
	for p := range l.parts {
		n += len(l.parts[p].seen)
	}
	return n
}

// differ holds a look against the final one; the caller holds h.mu.
func (h *History) differ(p int32, l, final *Look) {
	log := final.parts[p].seen
	for _, e := range l.parts[p].seen {
		switch now, found := at(log, e.offset); {
		case !found:
			h.note(LostWrite, p, e.offset, "%s read producer %d sequence %d here, and nothing stands there", l.Name, e.Producer, e.Seq)
		case now != e:
			h.note(InconsistentOffset, p, e.offset, "%s read producer %d sequence %d here, %s producer %d sequence %d (or other bytes of it)",
				l.Name, e.Producer, e.Seq, final.Name, now.Producer, now.Seq)
		}
	}
}

// at finds an offset in what was seen.
func at(seen []entry, offset int64) (entry, bool) {
	i, found := slices.BinarySearchFunc(seen, offset, func(e entry, o int64) int { return cmp.Compare(e.offset, o) })
	if !found {
		return entry{}, false
	}
	return seen[i], true
}
