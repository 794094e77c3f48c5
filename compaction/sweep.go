package compaction

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
)

// sweep deletes every object that nothing names and whose grace period is over, and ends multipart uploads that nobody
// will complete. One broker does it: the controller, so that it is done once; where two believe to be it for a moment, or one
// goes on long after its reign, both do right (doc.go).
//
// First it takes away the intents of incarnations that are over, of whatever broker: what they left becomes orphans (I7).
func (r *Runner) sweep(ctx context.Context) error {
	img := r.o.Meta.Image()
	if img.Controller() != r.o.BrokerID {
		return nil
	}
	if err := r.clearIntents(ctx, func(in *metadata.Intent) bool { return in.Dead(img) }); err != nil {
		return err
	}
	now, grace := r.o.Clock.Now(), r.o.Grace()
	if n, err := r.o.Bucket.AbortUploads(ctx, tiering.Prefix, now.Add(-r.o.UploadGrace)); err != nil {
		r.o.Logger.Warn("unfinished uploads were not swept", slog.Any("error", err))
	} else if n > 0 {
		r.o.Logger.Info("unfinished uploads swept", slog.Int("count", n))
	}
	inv, err := tiering.TakeInventory(ctx, r.o.Bucket)
	if err != nil {
		return err
	}
	intended, err := r.intended(ctx)
	if err != nil {
		return err
	}
	roots, err := r.o.Meta.Roots(ctx)
	if err != nil {
		return err
	}
	current, err := inv.Current(ctx, roots)
	if err != nil {
		return err
	}
	if err := r.refuseForeign(inv, current); err != nil {
		return err
	}
	var manifests, others []string
	for object, since := range inv.Unnamed(current) {
		kind := tiering.ParseName(object).Kind
		switch {
		case intended[object] || now.Sub(since) <= grace || kind == tiering.KindUnknown:
		case kind == tiering.KindManifest:
			manifests = append(manifests, object)
		default:
			others = append(others, object)
		}
	}
	r.metrics.swept(ctx, len(manifests)+len(others))
	// A manifest goes before what it names, so that nobody who has only the bucket misses something it still names.
	slices.Sort(manifests)
	slices.Sort(others)
	if err := r.delete(ctx, "orphan", manifests); err != nil {
		return err
	}
	return r.delete(ctx, "orphan", others)
}

// refuseForeign keeps a new cluster that was pointed at an old one's bucket from deleting what it does not know.
func (r *Runner) refuseForeign(inv *tiering.Inventory, current map[base.LogID]*tiering.Version) error {
	id := r.o.Meta.Image().ClusterID()
	for log, vs := range inv.Versions {
		for _, v := range vs {
			if v.Cluster != id && current[log] != v {
				return fmt.Errorf("the bucket holds %s of cluster %q, this is cluster %q: nothing is swept", v.TP, v.Cluster, id)
			}
		}
	}
	return nil
}
