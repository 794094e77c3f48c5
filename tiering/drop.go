package tiering

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering/manifest"
)

// DropBelow moves the log start in the manifest up and lets go of the segments below it; their objects become garbage for
// compaction. The log start itself was made durable by the log's owner before. kerr.NotLeaderForPartition where this
// broker does not lead the log.
func (t *Tiering) DropBelow(ctx context.Context, log base.LogID, start base.Offset) error {
	return t.DropMany(ctx, map[base.LogID]base.Offset{log: start})
}

// DropMany is DropBelow for several logs, whose new manifests share one object.
func (t *Tiering) DropMany(ctx context.Context, starts map[base.LogID]base.Offset) error {
	return t.rewrite(ctx, starts, func(c *change, start base.Offset) {
		c.apply = func(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, manifest.Dropped, error) {
			if m == nil || start <= m.LogStart {
				return m, manifest.Dropped{}, errNothingToDo
			}
			return t.dropBelow(ctx, m, start)
		}
	})
}

// Move writes the manifests of the logs anew, so that the objects that hold them now can be deleted: a manifest object
// that a deleted log shared with others must not outlive it.
func (t *Tiering) Move(ctx context.Context, logs ...base.LogID) error {
	todo := map[base.LogID]base.Offset{}
	for _, log := range logs {
		todo[log] = 0
	}
	return t.rewrite(ctx, todo, func(c *change, _ base.Offset) {
		before, _ := t.roots.get(c.log)
		c.apply = func(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, manifest.Dropped, error) {
			if now, _ := t.roots.get(c.log); m == nil || now.root.Object != before.root.Object {
				return m, manifest.Dropped{}, errNothingToDo
			}
			return m, manifest.Dropped{}, nil
		}
	})
}

// rewrite commits one change for each log, several with one object and one intent.
func (t *Tiering) rewrite(ctx context.Context, logs map[base.LogID]base.Offset, fill func(*change, base.Offset)) error {
	img := t.o.Meta.Image()
	var errs []error
	var changes []*change
	for log, start := range logs {
		epoch := t.ledEpoch(img, log)
		if epoch == base.NoLeaderEpoch {
			errs = append(errs, fmt.Errorf("rewrite manifest of %s: %w", log, kerr.NotLeaderForPartition))
			continue
		}
		c := &change{log: log, epoch: epoch}
		fill(c, start)
		changes = append(changes, c)
	}
	for chunk := range slices.Chunk(changes, t.o.ManifestsPerCommit) {
		names := t.commitNames()
		intent, err := t.putIntent(ctx, names.list())
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		names.intents = []string{intent}
		errs = append(errs, t.commit(ctx, chunk, names))
		t.finishIntent(context.WithoutCancel(ctx), intent)
	}
	return errors.Join(errs...)
}

// dropBelow loads the archives that are needed and applies the pure operation.
func (t *Tiering) dropBelow(ctx context.Context, m *manifest.Manifest, start base.Offset) (*manifest.Manifest, manifest.Dropped, error) {
	archives := map[manifest.ArchiveKey]*manifest.Archive{}
	for _, ref := range m.NeedsArchives(start) {
		a, err := t.archiveAt(ctx, ref)
		if err != nil {
			return nil, manifest.Dropped{}, err
		}
		archives[ref.Key()] = a
	}
	return m.DropBelow(start, archives)
}

// Manifest loads the current manifest of a log; nil where nothing was ever tiered. It must not be modified.
func (t *Tiering) Manifest(ctx context.Context, log base.LogID) (*manifest.Manifest, error) {
	st, ok := t.roots.get(log)
	if !ok {
		return nil, nil
	}
	return t.manifestAt(ctx, st.root)
}

// OldestTimestamp is the largest timestamp in milliseconds of the log's oldest tiered segment, from memory; ok is false
// where it is not known, then Entries tells.
func (t *Tiering) OldestTimestamp(log base.LogID) (ms int64, ok bool) {
	st, ok := t.roots.get(log)
	return st.oldestTs, ok && st.oldestTs != unknownTs
}

// Entries calls fn for the named segments of a log, oldest first, until it returns false. Archives are loaded as needed.
func (t *Tiering) Entries(ctx context.Context, log base.LogID, fn func(manifest.Entry) bool) error {
	st, ok := t.roots.get(log)
	if !ok {
		return nil
	}
	m, err := t.manifestAt(ctx, st.root)
	if err != nil {
		return err
	}
	first := true
	return t.EntriesOf(ctx, m, func(e manifest.Entry) bool {
		if first {
			first = false
			t.roots.setOldest(log, st.root.Object, e.MaxTimestamp)
		}
		return fn(e)
	})
}

// Load reads the manifest that a root names, of whatever log.
func (t *Tiering) Load(ctx context.Context, root metadata.Root) (*manifest.Manifest, error) {
	return t.manifestAt(ctx, root)
}

// EntriesOf calls fn for the segments that a manifest names, oldest first, until it returns false.
func (t *Tiering) EntriesOf(ctx context.Context, m *manifest.Manifest, fn func(manifest.Entry) bool) error {
	return t.entriesFrom(ctx, m, m.LogStart, nil, fn)
}

// entriesFrom is EntriesOf for the segments that end behind from, without the archives of which skip says so.
func (t *Tiering) entriesFrom(ctx context.Context, m *manifest.Manifest, from base.Offset, skip func(manifest.ArchiveRef) bool, fn func(manifest.Entry) bool) error {
	from = max(from, m.LogStart)
	for _, ref := range m.Archives {
		if ref.End <= from || skip != nil && skip(ref) {
			continue
		}
		a, err := t.archiveAt(ctx, ref)
		if err != nil {
			return err
		}
		for _, e := range a.Live(from) {
			if !fn(e) {
				return nil
			}
		}
	}
	i := sort.Search(len(m.Entries), func(i int) bool { return m.Entries[i].End > from })
	for _, e := range m.Entries[i:] {
		if !fn(e) {
			return nil
		}
	}
	return nil
}
