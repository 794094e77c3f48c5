package compaction

import (
	"context"
	"log/slog"
	"slices"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
)

// deleteTopics deletes the objects of deleted logs. Manifests go first, so that the bucket alone never tells of a log whose
// segments are gone; a manifest object that holds manifests of living logs too is left by them first. A pack stays while
// a living log is in it. There is no grace period: nobody can read a deleted log.
//
// Every broker moves its logs away, whoever leads them by then; the controller deletes. Until nothing is left all of them look
// again, ever more seldom.
func (r *Runner) deleteTopics(ctx context.Context) error {
	waiting, err := r.deleteTiered(ctx)
	r.topicsAgain(waiting || err != nil)
	return err
}

// deleteTiered reports whether something is left.
func (r *Runner) deleteTiered(ctx context.Context) (waiting bool, err error) {
	logs, err := r.tieredOnes(ctx)
	if err != nil || len(logs) == 0 {
		return false, err
	}
	inv, err := tiering.TakeInventory(ctx, r.o.Bucket)
	if err != nil {
		return true, err
	}
	d := newDeletion(inv, logs)
	if err := r.moveAway(ctx, d); err != nil {
		return true, err
	}
	if r.o.Meta.Image().Controller() != r.o.BrokerID {
		return true, nil // deleting is the controller's; moving away is everyone's
	}
	intended, err := r.intended(ctx)
	if err != nil {
		return true, err
	}
	roots, err := r.o.Meta.Roots(ctx) // after the intents: a round that ended in between stands in the roots
	if err != nil {
		return true, err
	}
	for log := range d.logs {
		delete(roots, log)
	}
	live, err := inv.Current(ctx, roots)
	if err != nil {
		return true, err
	}
	keep := intended
	for _, v := range live {
		inv.Names(v, func(object string) { keep[object] = true })
	}
	manifests, others, done := d.objects(keep)
	if err := r.delete(ctx, "topic", manifests); err != nil {
		return true, err
	}
	if err := r.delete(ctx, "topic", others); err != nil {
		return true, err
	}
	for _, log := range done {
		if err := r.forget(ctx, log); err != nil {
			return true, err
		}
	}
	return len(done) < len(d.logs), nil // others have to move away first, or a round is under way
}

// tieredOnes lists the deleted logs that have a root. The others never had a manifest: they are forgotten at once, without
// a look at the bucket, and what an unfinished round left of them is the sweep's.
func (r *Runner) tieredOnes(ctx context.Context) ([]metadata.DeletedLog, error) {
	logs, err := r.o.Meta.DeletedLogs(ctx)
	if err != nil || len(logs) == 0 {
		return nil, err
	}
	roots, err := r.o.Meta.Roots(ctx)
	if err != nil {
		return nil, err
	}
	var tiered []metadata.DeletedLog
	for _, log := range logs {
		if _, ok := roots[log.Log]; ok {
			tiered = append(tiered, log)
		} else if r.o.Meta.Image().Controller() != r.o.BrokerID {
			continue
		} else if err := r.forget(ctx, log); err != nil {
			return nil, err
		}
	}
	return tiered, nil
}

// forget removes the last trace of a deleted log.
func (r *Runner) forget(ctx context.Context, log metadata.DeletedLog) error {
	if err := r.o.Meta.ForgetLog(ctx, log.Log); err != nil {
		return err
	}
	r.o.Tiering.Forget(log.Log)
	r.o.Logger.Info("deleted log has no objects left", slog.String("topic", log.Topic), slog.String("log", log.Log.String()))
	return nil
}

// deletion is one pass over the deleted logs.
type deletion struct {
	inv      *tiering.Inventory
	logs     map[base.LogID]metadata.DeletedLog
	versions map[base.LogID][]*tiering.Version // manifests of each
	// foreign are logs whose id another cluster gave away too, in the same bucket.
	foreign map[base.LogID]bool
}

func newDeletion(inv *tiering.Inventory, logs []metadata.DeletedLog) *deletion {
	d := &deletion{inv: inv, logs: map[base.LogID]metadata.DeletedLog{}, versions: map[base.LogID][]*tiering.Version{}, foreign: map[base.LogID]bool{}}
	for _, l := range logs {
		d.logs[l.Log] = l
		for _, v := range inv.Versions[l.Log] {
			if v.TopicID == l.TopicID {
				d.versions[l.Log] = append(d.versions[l.Log], v)
			} else {
				d.foreign[l.Log] = true
			}
		}
	}
	return d
}

// moveAway writes the manifests of living logs of this broker anew where they share an object with a deleted log's.
func (r *Runner) moveAway(ctx context.Context, d *deletion) error {
	roots, err := r.o.Meta.Roots(ctx)
	if err != nil {
		return err
	}
	shared := map[string]bool{}
	for log := range d.logs {
		for _, v := range d.versions[log] {
			shared[v.Object] = true
		}
		if root, ok := roots[log]; ok {
			shared[root.Object] = true
		}
	}
	var move []base.LogID
	img := r.o.Meta.Image()
	for log, root := range roots {
		p, _, ok := img.Log(log)
		if _, dead := d.logs[log]; !dead && shared[root.Object] && ok && p.Leader == r.o.BrokerID {
			move = append(move, log)
		}
	}
	if len(move) == 0 {
		return nil
	}
	return r.o.Tiering.Move(ctx, move...)
}

// objects divides what belongs to the deleted logs: manifest objects, other objects, and the logs that nothing is left of
// once those are gone. A log whose manifests must stay keeps its segments too, and the logs that it shares a manifest
// object with.
func (d *deletion) objects(keep map[string]bool) (manifests, others []string, done []metadata.DeletedLog) {
	kept := d.kept(keep)
	mine := map[string]bool{}
	byName := map[base.LogID]bool{}
	for log, l := range d.logs {
		if kept[log] {
			continue
		}
		done = append(done, l)
		byName[log] = !d.foreign[log]
		for _, v := range d.versions[log] {
			d.inv.Names(v, func(object string) { mine[object] = true })
		}
	}
	for object := range d.inv.Objects {
		name := tiering.ParseName(object)
		switch {
		case keep[object] || name.Kind == tiering.KindUnknown:
		case name.Kind == tiering.KindManifest && mine[object]:
			manifests = append(manifests, object)
		case name.Kind == tiering.KindSegment && byName[name.Log], mine[object]:
			others = append(others, object)
		}
	}
	slices.Sort(manifests)
	slices.Sort(others)
	return manifests, others, done
}

// kept finds the deleted logs that have a manifest in an object that stays, and adds all that they name to what stays.
func (d *deletion) kept(keep map[string]bool) map[base.LogID]bool {
	kept := map[base.LogID]bool{}
	for grown := true; grown; {
		grown = false
		for log, versions := range d.versions {
			if kept[log] || !slices.ContainsFunc(versions, func(v *tiering.Version) bool { return keep[v.Object] }) {
				continue
			}
			kept[log], grown = true, true
			for _, v := range versions {
				d.inv.Names(v, func(object string) { keep[object] = true })
			}
		}
	}
	return kept
}
