package manifest

import (
	"fmt"
	"slices"
	"sort"

	"github.com/varvelog/varve/internal/base"
)

// Archive holds entries that were spilled from a manifest. It never changes.
type Archive struct {
	Identity
	Entries []Entry
}

// ArchiveKey names the bytes of an archive.
type ArchiveKey struct {
	Object string
	Pos    int64
}

// Key names the archive's bytes.
func (a ArchiveRef) Key() ArchiveKey { return ArchiveKey{Object: a.Object, Pos: a.Pos} }

// Spill moves the oldest entries into a new archive when there are more than limit; about half of the limit stay. The
// caller writes the archive's bytes and completes the manifest with AddArchive. It returns nil where nothing is to be done.
func (m *Manifest) Spill(limit int) *Archive {
	if len(m.Entries) <= limit {
		return nil
	}
	return &Archive{Identity: m.Identity, Entries: slices.Clone(m.Entries[:len(m.Entries)-limit/2])}
}

// AddArchive replaces the working entries that a holds by ref, which says where a's bytes are (Object, ObjectBytes, Pos,
// Len, CRC32C); the rest of ref is filled in.
func (m *Manifest) AddArchive(a *Archive, ref ArchiveRef) (*Manifest, error) {
	k := len(a.Entries)
	if k == 0 || k > len(m.Entries) || !slices.Equal(a.Entries, m.Entries[:k]) {
		return nil, fmt.Errorf("archive of %s does not hold the oldest entries", m.TP)
	}
	ref.Base, ref.End = a.Entries[0].Base, a.Entries[k-1].End
	ref.Entries, ref.Bytes, ref.MaxTimestamp = int64(k), 0, -1
	for _, e := range a.Entries {
		ref.Bytes += e.Len
		ref.MaxTimestamp = max(ref.MaxTimestamp, e.MaxTimestamp)
	}
	n := *m
	n.Archives = append(slices.Clone(m.Archives), ref)
	n.Entries = slices.Clone(m.Entries[k:])
	return &n, n.Check()
}

// Find returns the index of the entry that holds offset.
func (a *Archive) Find(offset base.Offset) (int, bool) {
	i := sort.Search(len(a.Entries), func(i int) bool { return a.Entries[i].End > offset })
	return i, i < len(a.Entries) && a.Entries[i].Base <= offset
}

// Live lists the entries that a manifest with the given log start still names.
func (a *Archive) Live(logStart base.Offset) []Entry {
	i := sort.Search(len(a.Entries), func(i int) bool { return a.Entries[i].End > logStart })
	return a.Entries[i:]
}

// check reports whether the archive holds together.
func (a *Archive) check() error {
	if a.Log == 0 || a.TP.Partition < 0 || len(a.Entries) == 0 {
		return fmt.Errorf("archive of %s, log %s: %d entries", a.TP, a.Log, len(a.Entries))
	}
	if err := checkEntries(a.Entries, base.NoOffset); err != nil {
		return fmt.Errorf("archive of %s: %w", a.TP, err)
	}
	return nil
}
