package manifest

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/varvelog/varve/internal/base"
)

// ErrNotContiguous means that an entry does not continue the manifest: its range was tiered already, or one is missing.
var ErrNotContiguous = errors.New("range does not continue the manifest")

// Flags of an entry.
type Flags uint8

// HasTransactions marks a segment with transactional batches or control batches.
const HasTransactions Flags = 1

// Entry names one verified segment (I4).
type Entry struct {
	Object       string
	ObjectBytes  int64 // size of the whole object, which is more than Len for a pack
	Pos, Len     int64 // of the segment within the object
	TailBytes    int64 // of Len: footer and trailer, so that one request fetches them
	CRC32C       uint32
	Base, End    base.Offset // [Base, End)
	MaxTimestamp int64       // milliseconds, -1 for none
	LeaderEpoch  base.LeaderEpoch
	Flags        Flags
}

// ArchiveRef names an archive: an immutable object with entries that were spilled. Of those, the ones that end at or below
// the manifest's LogStart are no longer named, without the archive being written anew.
type ArchiveRef struct {
	Object       string
	ObjectBytes  int64
	Pos, Len     int64
	CRC32C       uint32
	Base, End    base.Offset
	Bytes        int64 // sum of Len of the entries that are still named
	Entries      int64 // how many of them are still named
	MaxTimestamp int64 // of all entries
}

// Identity says whose manifest it is. The cluster's id keeps a cluster from sweeping what another one stored.
type Identity struct {
	Cluster string
	Log     base.LogID
	TopicID base.TopicID
	TP      base.TopicPartition
}

// Manifest is immutable once it was returned; its slices are never modified in place.
type Manifest struct {
	Identity
	Epoch     base.LeaderEpoch // of the writer
	Seq       int64            // grows with every attempt to write, so that max(Epoch, Seq) is the latest in a bucket
	WrittenMs int64
	LogStart  base.Offset
	End       base.Offset // offset after the last tiered record, also when all of it was dropped; 0 before the first
	Epochs    []base.EpochStart
	Archives  []ArchiveRef // oldest first
	Entries   []Entry      // oldest first, following the archives
}

// New returns the manifest of a log that has nothing tiered.
func New(id Identity, logStart base.Offset) *Manifest {
	return &Manifest{Identity: id, Epoch: base.NoLeaderEpoch, LogStart: logStart}
}

// Empty reports whether nothing is tiered.
func (m *Manifest) Empty() bool { return len(m.Entries) == 0 && len(m.Archives) == 0 }

// Start is the first offset that can be read: the log start, or where the first segment begins if that is later.
func (m *Manifest) Start() base.Offset {
	switch {
	case len(m.Archives) > 0:
		return max(m.LogStart, m.Archives[0].Base)
	case len(m.Entries) > 0:
		return max(m.LogStart, m.Entries[0].Base)
	}
	return m.End
}

// Bytes is the size of the named segments.
func (m *Manifest) Bytes() int64 {
	var n int64
	for _, a := range m.Archives {
		n += a.Bytes
	}
	for _, e := range m.Entries {
		n += e.Len
	}
	return n
}

// Segments counts the named segments.
func (m *Manifest) Segments() int64 {
	n := int64(len(m.Entries))
	for _, a := range m.Archives {
		n += a.Entries
	}
	return n
}

// After orders manifests of one log: the latest is the one that is after every other.
func (m *Manifest) After(o *Manifest) bool {
	if m.Epoch != o.Epoch {
		return m.Epoch > o.Epoch
	}
	return m.Seq > o.Seq
}

// With returns a copy that is written by epoch under seq at a time in milliseconds.
func (m *Manifest) With(epoch base.LeaderEpoch, seq, writtenMs int64) *Manifest {
	n := *m
	n.Epoch, n.Seq, n.WrittenMs = epoch, seq, writtenMs
	return &n
}

// Add appends entries, each of which continues the one before it. Where nothing is tiered any offset not below End may
// come first. The leader epochs of the log replace those known before.
func (m *Manifest) Add(entries []Entry, epochs []base.EpochStart) (*Manifest, error) {
	n := *m
	n.Entries = slices.Clone(m.Entries)
	for _, e := range entries {
		if e.Base < n.End || (e.Base > n.End && !n.Empty()) {
			return nil, fmt.Errorf("add [%d, %d) to %s, which ends at %d: %w", e.Base, e.End, m.TP, n.End, ErrNotContiguous)
		}
		n.Entries = append(n.Entries, e)
		n.End = e.End
	}
	if len(epochs) > 0 {
		n.Epochs = slices.Clone(epochs)
	}
	return &n, n.Check()
}

// Replace puts entries in the place of the working entries that cover exactly [entries[0].Base, entries[last].End). It is
// how compaction and merging commit. The replaced entries are returned.
func (m *Manifest) Replace(entries []Entry) (next *Manifest, replaced []Entry, err error) {
	if len(entries) == 0 {
		return nil, nil, errors.New("replace by nothing")
	}
	from, to := entries[0].Base, entries[len(entries)-1].End
	i := sort.Search(len(m.Entries), func(i int) bool { return m.Entries[i].Base >= from })
	j := sort.Search(len(m.Entries), func(i int) bool { return m.Entries[i].End >= to })
	if i > j || j >= len(m.Entries) || m.Entries[i].Base != from || m.Entries[j].End != to {
		return nil, nil, fmt.Errorf("replace [%d, %d) of %s: %w", from, to, m.TP, ErrNotContiguous)
	}
	n := *m
	n.Entries = slices.Concat(m.Entries[:i], entries, m.Entries[j+1:])
	return &n, slices.Clone(m.Entries[i : j+1]), n.Check()
}

// Dropped is what DropBelow let go of.
type Dropped struct {
	Entries  []Entry
	Archives []ArchiveRef // whole archives
}

// NeedsArchives lists the archives whose content DropBelow(start) must see.
func (m *Manifest) NeedsArchives(start base.Offset) []ArchiveRef {
	i := sort.Search(len(m.Archives), func(i int) bool { return m.Archives[i].Base >= start })
	return m.Archives[:i:i]
}

// DropBelow moves the log start up to start and lets go of every segment that ends at or below it. archives holds the
// content of NeedsArchives(start) by object name and position. A start at or below the log start changes nothing.
func (m *Manifest) DropBelow(start base.Offset, archives map[ArchiveKey]*Archive) (*Manifest, Dropped, error) {
	var d Dropped
	if start <= m.LogStart {
		return m, d, nil
	}
	n := *m
	n.Archives = nil
	for _, a := range m.Archives {
		if a.Base >= start {
			n.Archives = append(n.Archives, a)
			continue
		}
		content, ok := archives[a.Key()]
		if !ok {
			return nil, d, fmt.Errorf("drop below %d of %s: archive %s is not at hand", start, m.TP, a.Object)
		}
		kept := a.drop(content, m.LogStart, start, &d)
		if kept.Entries > 0 {
			n.Archives = append(n.Archives, kept)
		} else {
			d.Archives = append(d.Archives, a)
		}
	}
	i := sort.Search(len(m.Entries), func(i int) bool { return m.Entries[i].End > start })
	d.Entries = append(d.Entries, m.Entries[:i]...)
	n.Entries = slices.Clone(m.Entries[i:])
	n.LogStart = start
	n.Epochs = epochsFrom(m.Epochs, start)
	return &n, d, n.Check()
}

// drop counts the entries of an archive out that end in (oldStart, start].
func (a ArchiveRef) drop(content *Archive, oldStart, start base.Offset, d *Dropped) ArchiveRef {
	for _, e := range content.Entries {
		if e.End > oldStart && e.End <= start {
			d.Entries = append(d.Entries, e)
			a.Bytes -= e.Len
			a.Entries--
		}
	}
	return a
}

// epochsFrom keeps the epoch that start belongs to and all later ones.
func epochsFrom(epochs []base.EpochStart, start base.Offset) []base.EpochStart {
	i := sort.Search(len(epochs), func(i int) bool { return epochs[i].Start > start })
	return slices.Clone(epochs[max(i-1, 0):])
}

// Check reports whether the manifest holds together: ranges contiguous, in order, without overlap, sizes positive.
func (m *Manifest) Check() error {
	if m.Log == 0 || m.LogStart < 0 || m.End < 0 || m.TP.Partition < 0 {
		return fmt.Errorf("manifest of %s, log %s: start %d, end %d", m.TP, m.Log, m.LogStart, m.End)
	}
	next := base.NoOffset
	for i, a := range m.Archives {
		if a.Base < 0 || a.End <= a.Base || a.Len <= 0 || a.Pos < 0 || a.Entries <= 0 || a.Bytes <= 0 || a.ObjectBytes-a.Len < a.Pos || a.Object == "" {
			return fmt.Errorf("manifest of %s: archive %d %+v", m.TP, i, a)
		}
		if next != base.NoOffset && a.Base != next {
			return fmt.Errorf("manifest of %s: archive %d begins at %d, not at %d", m.TP, i, a.Base, next)
		}
		next = a.End
	}
	if err := checkEntries(m.Entries, next); err != nil {
		return fmt.Errorf("manifest of %s: %w", m.TP, err)
	}
	if n := len(m.Entries); n > 0 {
		next = m.Entries[n-1].End
	}
	if next != base.NoOffset && (next != m.End || m.LogStart >= m.End) {
		return fmt.Errorf("manifest of %s: log start %d, end %d, last segment ends at %d", m.TP, m.LogStart, m.End, next)
	}
	for i := 1; i < len(m.Epochs); i++ {
		if m.Epochs[i].Epoch <= m.Epochs[i-1].Epoch || m.Epochs[i].Start < m.Epochs[i-1].Start {
			return fmt.Errorf("manifest of %s: leader epoch %d at %d is out of order", m.TP, m.Epochs[i].Epoch, m.Epochs[i].Start)
		}
	}
	return nil
}

// checkEntries checks a run of entries that begins at next, or anywhere where next is NoOffset.
func checkEntries(entries []Entry, next base.Offset) error {
	for i, e := range entries {
		if e.Base < 0 || e.End <= e.Base || e.Len <= 0 || e.Pos < 0 || e.TailBytes <= 0 || e.TailBytes >= e.Len || e.ObjectBytes-e.Len < e.Pos || e.Object == "" {
			return fmt.Errorf("segment %d %+v", i, e)
		}
		if next != base.NoOffset && e.Base != next {
			return fmt.Errorf("segment %d begins at %d, not at %d", i, e.Base, next)
		}
		next = e.End
	}
	return nil
}

// Find returns the place of the segment that holds offset: an index into Entries, or into Archives where archived is true.
func (m *Manifest) Find(offset base.Offset) (i int, archived, ok bool) {
	if offset < m.Start() || offset >= m.End || m.Empty() {
		return 0, false, false
	}
	if i := sort.Search(len(m.Archives), func(i int) bool { return m.Archives[i].End > offset }); i < len(m.Archives) {
		return i, true, true
	}
	i = sort.Search(len(m.Entries), func(i int) bool { return m.Entries[i].End > offset })
	return i, false, i < len(m.Entries)
}

// MemoryBytes estimates what the manifest holds in memory.
func (m *Manifest) MemoryBytes() int64 {
	return int64(256 + 176*(len(m.Entries)+len(m.Archives)) + 16*len(m.Epochs))
}
