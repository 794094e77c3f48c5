package tiering

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering/manifest"
)

// Tail is what a replica needs that has nothing hot and goes on where the bucket ends (design section 5): no cold byte moves.
type Tail struct {
	Start base.Offset // log start offset as of the manifest
	End   base.Offset // offset after the last tiered record: where the replica goes on; 0 where nothing was ever tiered
	// Epochs are the leader epochs of the log up to End, from the one that Start lies in. None where nothing was ever tiered.
	Epochs []base.EpochStart
	// Producers is the snapshot of the producers as of End, as the source gave it with the range that ends there; empty where
	// there was none, and where retention dropped every segment: then no batch of theirs is left that could be repeated.
	Producers []byte
}

// Tail answers how the tiered part of a log ends. atLeast is what the caller knows of that from elsewhere, an offset that is
// tiered or deleted (0: nothing): a root in memory that ends below it is old and is read again. The Tail may still end there:
// then what is missing was deleted before it was tiered, and the log goes on at its leader's log start.
//
// Errors: marked corruption (base.IsCorruption) where manifest or footer are damaged, Missing where the bucket has not what
// the root names; else the bucket's or the metadata store's, to be tried again.
func (r *Reader) Tail(ctx context.Context, log base.LogID, atLeast base.Offset) (Tail, error) {
	if root, _ := r.t.Root(log); root.TieredEnd < atLeast {
		if err := r.t.Refresh(ctx, log, base.NoLeaderEpoch); err != nil {
			return Tail{}, err
		}
	}
	tail, err := r.tail(ctx, log)
	if errors.Is(err, objstore.ErrNotFound) { // let go of by a newer manifest, and deleted since
		if err := r.t.Refresh(ctx, log, base.NoLeaderEpoch); err != nil {
			return Tail{}, err
		}
		tail, err = r.tail(ctx, log)
	}
	if err != nil {
		return Tail{}, fmt.Errorf("tiered end of log %s: %w", log, err)
	}
	return tail, nil
}

func (r *Reader) tail(ctx context.Context, log base.LogID) (Tail, error) {
	m, err := r.manifest(ctx, log)
	if err != nil || m == nil {
		return Tail{}, err
	}
	t := Tail{Start: m.LogStart, End: m.End, Epochs: slices.Clone(m.Epochs)}
	last, ok, err := r.lastEntry(ctx, m)
	if err != nil || !ok {
		return t, err
	}
	f, err := r.loneFooter(ctx, last)
	if err != nil {
		return Tail{}, err
	}
	t.Producers = slices.Clone(f.Producers)
	return t, nil
}

// lastEntry is the segment that ends with the manifest; ok is false where there is none.
func (r *Reader) lastEntry(ctx context.Context, m *manifest.Manifest) (e manifest.Entry, ok bool, err error) {
	if n := len(m.Entries); n > 0 {
		return m.Entries[n-1], true, nil
	}
	if len(m.Archives) == 0 {
		return manifest.Entry{}, false, nil
	}
	a, err := r.t.archiveAt(ctx, m.Archives[len(m.Archives)-1])
	if err != nil {
		return manifest.Entry{}, false, err
	}
	return a.Entries[len(a.Entries)-1], true, nil
}
