package compaction

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/manifest"
)

// pending are objects that commits let go of and whose grace period runs. It is memory only: what a crash forgets, the
// sweep finds.
type pending struct {
	sync.Mutex
	items map[string]time.Time
}

func (p *pending) len() int64 {
	p.Lock()
	defer p.Unlock()
	return int64(len(p.items))
}

// add takes new garbage, up to limit objects, and returns what is due.
func (p *pending) add(garbage []tiering.Garbage, limit int, dueBefore time.Time) []string {
	p.Lock()
	defer p.Unlock()
	if p.items == nil {
		p.items = map[string]time.Time{}
	}
	for _, g := range garbage {
		if len(p.items) < limit {
			p.items[g.Object] = g.Since
		}
	}
	var due []string
	for object, since := range p.items {
		if !since.After(dueBefore) {
			due = append(due, object)
		}
	}
	return due
}

func (p *pending) remove(objects ...string) {
	p.Lock()
	defer p.Unlock()
	for _, o := range objects {
		delete(p.items, o)
	}
}

// collect deletes the garbage whose grace period is over and that nothing names.
func (r *Runner) collect(ctx context.Context) error {
	due := r.pending.add(r.o.Tiering.TakeGarbage(), r.o.MaxPending, r.o.Clock.Now().Add(-r.o.Grace()))
	if len(due) == 0 {
		return nil
	}
	owners, gone, err := r.ownersOf(ctx, due)
	if err != nil {
		return err
	}
	r.pending.remove(gone...)
	intended, err := r.intended(ctx)
	if err != nil {
		return err
	}
	roots, err := r.o.Meta.Roots(ctx)
	if err != nil {
		return err
	}
	named, err := r.namedBy(ctx, roots, owners)
	if err != nil {
		return err
	}
	var dead []string
	for object := range owners {
		switch {
		case named[object]:
			r.pending.remove(object)
		case !intended[object]:
			dead = append(dead, object)
		}
	}
	return r.delete(ctx, "garbage", dead)
}

// ownersOf finds the logs whose manifests could name each object. gone are objects that do not exist any more.
func (r *Runner) ownersOf(ctx context.Context, objects []string) (owners map[string][]base.LogID, gone []string, err error) {
	owners = map[string][]base.LogID{}
	for _, object := range objects {
		switch name := tiering.ParseName(object); name.Kind {
		case tiering.KindSegment:
			owners[object] = []base.LogID{name.Log}
		case tiering.KindManifest:
			owners[object] = nil // roots name it, no manifest does
		case tiering.KindPack, tiering.KindArchive:
			logs, err := r.logsIn(ctx, object)
			switch {
			case errors.Is(err, objstore.ErrNotFound), base.IsCorruption(err): // the sweep needs no directory
				gone = append(gone, object)
			case err != nil:
				return nil, nil, err
			default:
				owners[object] = logs
			}
		default:
			gone = append(gone, object)
		}
	}
	return owners, gone, nil
}

// logsIn reads the directory of a pack.
func (r *Runner) logsIn(ctx context.Context, object string) ([]base.LogID, error) {
	info, err := r.o.Bucket.Head(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("head %s: %w", object, err)
	}
	parts, err := tiering.ReadDirectory(ctx, r.o.Bucket, object, info.Size)
	if err != nil {
		return nil, err
	}
	logs := make([]base.LogID, len(parts))
	for i, p := range parts {
		logs[i] = p.Log
	}
	return logs, nil
}

// namedBy answers which of the objects are named by the current roots: as manifests by any, as segments and archives by
// the manifests of their owners.
func (r *Runner) namedBy(ctx context.Context, roots map[base.LogID]metadata.Root, owners map[string][]base.LogID) (map[string]bool, error) {
	named := map[string]bool{}
	for _, root := range roots {
		named[root.Object] = true
	}
	done := map[base.LogID]bool{}
	for _, logs := range owners {
		for _, log := range logs {
			root, ok := roots[log]
			if !ok || done[log] {
				continue
			}
			done[log] = true
			m, err := r.o.Tiering.Load(ctx, root)
			if err != nil {
				return nil, err
			}
			for _, a := range m.Archives {
				named[a.Object] = true
			}
			if err := r.o.Tiering.EntriesOf(ctx, m, func(e manifest.Entry) bool { named[e.Object] = true; return true }); err != nil {
				return nil, err
			}
		}
	}
	return named, nil
}

// intended is the set of objects that live intents name (I7).
func (r *Runner) intended(ctx context.Context) (map[string]bool, error) {
	intents, err := r.o.Meta.Intents(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, in := range intents {
		for _, o := range in.Objects {
			out[o] = true
		}
	}
	return out, nil
}

// delete is the one place of the program that deletes objects.
func (r *Runner) delete(ctx context.Context, why string, objects []string) error {
	for len(objects) > 0 {
		n := min(len(objects), r.o.DeletesPerRun)
		if err := r.o.Bucket.Delete(ctx, objects[:n]...); err != nil {
			return fmt.Errorf("delete %d objects: %w", n, err)
		}
		r.pending.remove(objects[:n]...)
		r.metrics.deleted(ctx, why, n)
		objects = objects[n:]
	}
	return nil
}
