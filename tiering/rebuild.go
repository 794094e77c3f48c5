package tiering

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
	"github.com/varvelog/varve/tiering/wire"
)

// ReadOnlyBucket is what is needed to look at a bucket without a cluster.
type ReadOnlyBucket interface {
	objstore.Reader
	objstore.Lister
}

// Version is one manifest found in the bucket.
type Version struct {
	*manifest.Manifest
	Object   string
	Pos, Len int64
	CRC32C   uint32
	Written  time.Time // when the object was written, by the bucket's clock
}

// Root is the root that names this version.
func (v *Version) Root() metadata.Root {
	m := v.Manifest
	return metadata.Root{Log: m.Log, Epoch: m.Epoch, Seq: m.Seq, Object: v.Object, Pos: v.Pos, Len: v.Len, CRC32C: v.CRC32C, Start: m.LogStart, TieredEnd: m.End, Bytes: m.Bytes(), Objects: m.Segments()}
}

// Problem is one object, or part of one, that is not as it must be.
type Problem struct {
	Object string `json:"object"`
	Pos    int64  `json:"pos"`
	Detail string `json:"detail"`
}

// Inventory is everything about a bucket that follows from its listing and its manifests. It is taken without a cluster.
type Inventory struct {
	Objects  map[string]objstore.Info
	Versions map[base.LogID][]*Version // by epoch and sequence, the latest last
	Archives map[manifest.ArchiveKey]*manifest.Archive
	Missing  []Problem // archives that are named and not there
	Corrupt  []Problem // manifests and archives that cannot be read

	bucket ReadOnlyBucket
}

// inventoryReaders is how many manifests are read at the same time.
const inventoryReaders = 16

// TakeInventory lists the bucket and reads all manifests, current and superseded, and the archives that they name.
func TakeInventory(ctx context.Context, bucket ReadOnlyBucket) (*Inventory, error) {
	inv := &Inventory{Objects: map[string]objstore.Info{}, Versions: map[base.LogID][]*Version{}, Archives: map[manifest.ArchiveKey]*manifest.Archive{}, bucket: bucket}
	var manifests []string
	for info, err := range bucket.List(ctx, Prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", Prefix, err)
		}
		inv.Objects[info.Key] = info
		if ParseName(info.Key).Kind == KindManifest {
			manifests = append(manifests, info.Key)
		}
	}
	if err := inv.readManifests(ctx, manifests); err != nil {
		return nil, err
	}
	for _, vs := range inv.Versions {
		slices.SortFunc(vs, func(a, b *Version) int {
			switch {
			case a.After(b.Manifest):
				return 1
			case b.After(a.Manifest):
				return -1
			}
			return a.Written.Compare(b.Written)
		})
	}
	return inv, inv.readArchives(ctx)
}

// readManifests reads the manifests of each object, several objects at a time.
func (inv *Inventory) readManifests(ctx context.Context, objects []string) error {
	var mu sync.Mutex
	return eachParallel(ctx, inventoryReaders, objects, func(object string) error {
		mu.Lock()
		info := inv.Objects[object]
		mu.Unlock()
		versions, problems, err := inv.readManifestObject(ctx, info)
		mu.Lock()
		defer mu.Unlock()
		if errors.Is(err, objstore.ErrNotFound) { // deleted since the listing
			delete(inv.Objects, object)
			return nil
		}
		if err != nil {
			return err
		}
		inv.Corrupt = append(inv.Corrupt, problems...)
		for _, v := range versions {
			inv.Versions[v.Log] = append(inv.Versions[v.Log], v)
		}
		return nil
	})
}

// readManifestObject decodes all manifests of one object.
func (inv *Inventory) readManifestObject(ctx context.Context, info objstore.Info) ([]*Version, []Problem, error) {
	object := info.Key
	data, err := inv.bucket.Get(ctx, object, 0, -1)
	if err != nil {
		return nil, nil, fmt.Errorf("get %s: %w", object, err)
	}
	_, parts, err := segment.ParseDirectory(data)
	if err != nil {
		return nil, []Problem{{Object: object, Detail: err.Error()}}, nil
	}
	var versions []*Version
	var problems []Problem
	for _, p := range parts {
		b := data[p.Pos : p.Pos+p.Len]
		m, err := manifest.Decode(b)
		if err == nil && wire.Checksum(b) != p.CRC32C {
			err = fmt.Errorf("checksum %08x, the directory says %08x", wire.Checksum(b), p.CRC32C)
		}
		if err != nil {
			problems = append(problems, Problem{Object: object, Pos: p.Pos, Detail: err.Error()})
			continue
		}
		versions = append(versions, &Version{Manifest: m, Object: object, Pos: p.Pos, Len: p.Len, CRC32C: p.CRC32C, Written: info.ModTime})
	}
	return versions, problems, nil
}

// readArchives reads each archive that some manifest names once. Only those of the latest manifests must be there.
func (inv *Inventory) readArchives(ctx context.Context) error {
	type want struct {
		ref    manifest.ArchiveRef
		latest bool
	}
	wants := map[manifest.ArchiveKey]want{}
	for _, vs := range inv.Versions {
		for i, v := range vs {
			for _, ref := range v.Archives {
				w := wants[ref.Key()]
				wants[ref.Key()] = want{ref: ref, latest: w.latest || i == len(vs)-1}
			}
		}
	}
	var mu sync.Mutex
	var list []want
	for _, w := range wants {
		list = append(list, w)
	}
	return eachParallel(ctx, inventoryReaders, list, func(w want) error {
		data, err := inv.bucket.Get(ctx, w.ref.Object, w.ref.Pos, w.ref.Len)
		var a *manifest.Archive
		if err == nil {
			if a, err = manifest.DecodeArchive(data); err == nil && wire.Checksum(data) != w.ref.CRC32C {
				err = base.MarkCorruption(fmt.Errorf("checksum %08x, the manifest says %08x", wire.Checksum(data), w.ref.CRC32C))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		p := Problem{Object: w.ref.Object, Pos: w.ref.Pos}
		switch {
		case err == nil:
			inv.Archives[w.ref.Key()] = a
		case !w.latest:
		case base.IsCorruption(err) || errors.Is(err, objstore.ErrRange):
			p.Detail = err.Error()
			inv.Corrupt = append(inv.Corrupt, p)
		case errors.Is(err, objstore.ErrNotFound):
			p.Detail = "archive is missing"
			inv.Missing = append(inv.Missing, p)
		default:
			return fmt.Errorf("get %s: %w", w.ref.Object, err)
		}
		return nil
	})
}

// Latest is the newest version of each log: what a cluster that is rebuilt from the bucket starts from.
func (inv *Inventory) Latest() map[base.LogID]*Version {
	out := map[base.LogID]*Version{}
	for log, vs := range inv.Versions {
		if len(vs) > 0 {
			out[log] = vs[len(vs)-1]
		}
	}
	return out
}

// Current finds the version that each root names. One that was committed after the listing is read now. An error means that
// something current cannot be read: then nothing may be concluded about what is unnamed.
func (inv *Inventory) Current(ctx context.Context, roots map[base.LogID]metadata.Root) (map[base.LogID]*Version, error) {
	out := map[base.LogID]*Version{}
	for log, root := range roots {
		i := slices.IndexFunc(inv.Versions[log], func(v *Version) bool { return v.Object == root.Object && v.Pos == root.Pos })
		if i >= 0 {
			out[log] = inv.Versions[log][i]
		} else {
			v, err := inv.readVersion(ctx, root)
			if err != nil {
				return nil, fmt.Errorf("current manifest of %s: %w", log, err)
			}
			out[log] = v
		}
		for _, ref := range out[log].Archives {
			if inv.Archives[ref.Key()] != nil {
				continue
			}
			data, err := inv.bucket.Get(ctx, ref.Object, ref.Pos, ref.Len)
			if err != nil {
				return nil, fmt.Errorf("archive of %s: %w", log, err)
			}
			if inv.Archives[ref.Key()], err = manifest.DecodeArchive(data); err != nil {
				return nil, fmt.Errorf("archive %s of %s: %w", ref.Object, log, err)
			}
		}
	}
	return out, nil
}

func (inv *Inventory) readVersion(ctx context.Context, root metadata.Root) (*Version, error) {
	data, err := inv.bucket.Get(ctx, root.Object, root.Pos, root.Len)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", root.Object, err)
	}
	m, err := manifest.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s at %d: %w", root.Object, root.Pos, err)
	}
	return &Version{Manifest: m, Object: root.Object, Pos: root.Pos, Len: root.Len, CRC32C: root.CRC32C}, nil
}

// Names calls fn for every object that a manifest names: its own, its archives', its segments'. An archive that is not in
// the inventory is left out.
func (inv *Inventory) Names(v *Version, fn func(object string)) {
	fn(v.Object)
	for _, ref := range v.Archives {
		fn(ref.Object)
		if a := inv.Archives[ref.Key()]; a != nil {
			for _, e := range a.Live(v.LogStart) {
				fn(e.Object)
			}
		}
	}
	for _, e := range v.Entries {
		fn(e.Object)
	}
}

// Unnamed answers, for each object that the current manifests do not name, since when that is so: when a newer manifest
// took the place of the last one that named it, or else when it was written. current has the current version of each log.
func (inv *Inventory) Unnamed(current map[base.LogID]*Version) map[string]time.Time {
	live := map[string]bool{}
	for _, v := range current {
		inv.Names(v, func(object string) { live[object] = true })
	}
	since := map[string]time.Time{}
	for key, info := range inv.Objects {
		if !live[key] {
			since[key] = info.ModTime
		}
	}
	for _, vs := range inv.Versions {
		for i, v := range vs[:max(len(vs)-1, 0)] {
			inv.Names(v, func(object string) {
				if t, ok := since[object]; ok && vs[i+1].Written.After(t) {
					since[object] = vs[i+1].Written
				}
			})
		}
	}
	return since
}

// Rebuild finds the latest manifest of every log from the bucket alone.
func Rebuild(ctx context.Context, bucket ReadOnlyBucket) (map[base.LogID]*Version, error) {
	inv, err := TakeInventory(ctx, bucket)
	if err != nil {
		return nil, err
	}
	return inv.Latest(), nil
}

// eachParallel calls fn for every item from n goroutines and returns the first error.
func eachParallel[T any](ctx context.Context, n int, items []T, fn func(T) error) error {
	ch := make(chan T)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for it := range ch {
				if errs[i] == nil {
					errs[i] = fn(it)
				}
			}
		})
	}
	for _, it := range items {
		if ctx.Err() != nil {
			break
		}
		ch <- it
	}
	close(ch)
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}
