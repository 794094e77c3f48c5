package tiering

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
	"github.com/varvelog/varve/tiering/wire"
)

// FsckOptions says how to judge a bucket.
type FsckOptions struct {
	Grace    time.Duration // an object that nothing names for less than this is work in progress or waits for deletion
	Now      time.Time
	Parallel int // segments that are read at the same time, each in memory as a whole; default 2
}

// Report is what Fsck found. The counts in the first group are what `varve bucket fsck` is judged by.
type Report struct {
	Objects     int64 `json:"objects"`
	Bytes       int64 `json:"bytes"`
	Missing     int64 `json:"missing"`
	Corrupt     int64 `json:"corrupt"`
	Orphans     int64 `json:"orphans"` // named by no latest manifest, for longer than the grace period
	OrphanBytes int64 `json:"orphanBytes"`

	Logs           int64     `json:"logs"`
	Segments       int64     `json:"segments"`
	Records        int64     `json:"offsets"` // offsets that the segments cover
	InGrace        int64     `json:"inGrace"` // unnamed, but not for long enough to be orphans
	InGraceBytes   int64     `json:"inGraceBytes"`
	Unknown        int64     `json:"unknown"` // objects whose names are not of this format
	MissingDetails []Problem `json:"missingDetails,omitempty"`
	CorruptDetails []Problem `json:"corruptDetails,omitempty"`
	OrphanDetails  []Problem `json:"orphanDetails,omitempty"`
}

// Clean reports whether nothing is missing, corrupt or orphaned past the grace period.
func (r *Report) Clean() bool { return r.Missing == 0 && r.Corrupt == 0 && r.Orphans == 0 }

// fsckPasses is how often Fsck looks again where a live cluster may have deleted what it was about to read.
const fsckPasses = 3

// Fsck reads the bucket alone and recomputes every checksum, index and manifest. The error is that of the bucket; what is
// wrong with its content stands in the report. It may run beside a live cluster.
func Fsck(ctx context.Context, bucket ReadOnlyBucket, o FsckOptions) (Report, error) {
	if o.Parallel <= 0 {
		o.Parallel = 2
	}
	var rep Report
	for range fsckPasses {
		inv, err := TakeInventory(ctx, bucket)
		if err != nil {
			return rep, err
		}
		rep, err = fsckOnce(ctx, inv, o)
		if err != nil || rep.Missing == 0 {
			return rep, err
		}
	}
	return rep, nil
}

func fsckOnce(ctx context.Context, inv *Inventory, o FsckOptions) (Report, error) {
	rep := Report{MissingDetails: inv.Missing, CorruptDetails: inv.Corrupt}
	for _, info := range inv.Objects {
		rep.Objects++
		rep.Bytes += info.Size
	}
	latest := inv.Latest()
	rep.Logs = int64(len(latest))
	var checks []segmentCheck
	for _, v := range latest {
		checks = append(checks, inv.segmentsOf(v, &rep)...)
	}
	for _, c := range checks {
		rep.Segments++
		rep.Records += int64(c.e.End - c.e.Base)
	}
	var mu sync.Mutex
	err := eachParallel(ctx, o.Parallel, checks, func(c segmentCheck) error {
		err := inv.checkSegment(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		return rep.judge(c.e.Object, c.e.Pos, err)
	})
	if err == nil {
		err = eachParallel(ctx, o.Parallel, packsOf(checks, latest), func(p packCheck) error {
			err := inv.checkDirectory(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			return rep.judge(p.object, -1, err)
		})
	}
	rep.countUnnamed(inv, latest, o)
	slices.SortFunc(rep.OrphanDetails, func(a, b Problem) int { return slices.Compare([]string{a.Object}, []string{b.Object}) })
	rep.Missing, rep.Corrupt = int64(len(rep.MissingDetails)), int64(len(rep.CorruptDetails))
	return rep, err
}

// judge sorts the outcome of a check into the report; an error of the bucket itself is returned.
func (r *Report) judge(object string, pos int64, err error) error {
	p := Problem{Object: object, Pos: pos}
	switch {
	case err == nil:
	case errors.Is(err, objstore.ErrNotFound):
		p.Detail = "segment is missing"
		r.MissingDetails = append(r.MissingDetails, p)
	case base.IsCorruption(err) || errors.Is(err, objstore.ErrRange):
		p.Detail = err.Error()
		r.CorruptDetails = append(r.CorruptDetails, p)
	default:
		return fmt.Errorf("check %s: %w", object, err)
	}
	return nil
}

// countUnnamed counts what no latest manifest names.
func (r *Report) countUnnamed(inv *Inventory, latest map[base.LogID]*Version, o FsckOptions) {
	for object, since := range inv.Unnamed(latest) {
		size := inv.Objects[object].Size
		switch {
		case ParseName(object).Kind == KindUnknown:
			r.Unknown++
		case o.Now.Sub(since) <= o.Grace:
			r.InGrace++
			r.InGraceBytes += size
		default:
			r.Orphans++
			r.OrphanBytes += size
			r.OrphanDetails = append(r.OrphanDetails, Problem{Object: object, Detail: "unnamed since " + since.UTC().Format(time.RFC3339)})
		}
	}
}

// segmentCheck is one segment to be checked.
type segmentCheck struct {
	id manifest.Identity
	e  manifest.Entry
}

// segmentsOf lists the segments that a version names and checks its archives against their references.
func (inv *Inventory) segmentsOf(v *Version, rep *Report) []segmentCheck {
	var out []segmentCheck
	for _, ref := range v.Archives {
		a := inv.Archives[ref.Key()]
		if a == nil {
			continue // counted when it was read
		}
		var bytes, n int64
		for _, e := range a.Live(v.LogStart) {
			out = append(out, segmentCheck{id: v.Identity, e: e})
			bytes, n = bytes+e.Len, n+1
		}
		if last := len(a.Entries) - 1; a.Log != v.Log || a.Entries[0].Base != ref.Base || a.Entries[last].End != ref.End || bytes != ref.Bytes || n != ref.Entries {
			rep.CorruptDetails = append(rep.CorruptDetails, Problem{Object: ref.Object, Pos: ref.Pos, Detail: "archive does not match the manifest that names it"})
		}
	}
	for _, e := range v.Entries {
		out = append(out, segmentCheck{id: v.Identity, e: e})
	}
	return out
}

// checkSegment reads a segment and compares everything about it with the manifest.
func (inv *Inventory) checkSegment(ctx context.Context, c segmentCheck) error {
	if info, ok := inv.Objects[c.e.Object]; ok && info.Size != c.e.ObjectBytes {
		return base.MarkCorruption(fmt.Errorf("object has %d bytes, the manifest says %d", info.Size, c.e.ObjectBytes))
	}
	_, err := readSegment(ctx, inv.bucket, c.id, c.e)
	return err
}

// packCheck is one pack and what manifests say of its parts.
type packCheck struct {
	object string
	size   int64
	parts  map[int64]segment.Part // by position
}

// packsOf groups what lies in packs of segments or archives by object.
func packsOf(checks []segmentCheck, latest map[base.LogID]*Version) []packCheck {
	packs := map[string]packCheck{}
	add := func(object string, size int64, p segment.Part) {
		if kind := ParseName(object).Kind; kind != KindPack && kind != KindArchive {
			return
		}
		if packs[object].parts == nil {
			packs[object] = packCheck{object: object, size: size, parts: map[int64]segment.Part{}}
		}
		packs[object].parts[p.Pos] = p
	}
	for _, c := range checks {
		add(c.e.Object, c.e.ObjectBytes, segment.Part{Log: c.id.Log, Pos: c.e.Pos, Len: c.e.Len, CRC32C: c.e.CRC32C, First: int64(c.e.Base), Last: int64(c.e.End)})
	}
	for _, v := range latest {
		for _, a := range v.Archives {
			add(a.Object, a.ObjectBytes, segment.Part{Log: v.Log, Pos: a.Pos, Len: a.Len, CRC32C: a.CRC32C, First: int64(a.Base), Last: int64(a.End)})
		}
	}
	return slices.Collect(maps.Values(packs))
}

// checkDirectory compares the directory of a pack with what manifests say of its parts.
func (inv *Inventory) checkDirectory(ctx context.Context, p packCheck) error {
	parts, err := ReadDirectory(ctx, inv.bucket, p.object, p.size)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if want, ok := p.parts[part.Pos]; ok && want != part {
			return base.MarkCorruption(fmt.Errorf("directory says %+v, the manifest %+v", part, want))
		}
		delete(p.parts, part.Pos)
	}
	if len(p.parts) > 0 {
		return base.MarkCorruption(fmt.Errorf("directory lacks %d parts that manifests name", len(p.parts)))
	}
	return nil
}

// ReadDirectory reads the directory of a pack of size bytes.
func ReadDirectory(ctx context.Context, bucket objstore.Reader, object string, size int64) ([]segment.Part, error) {
	for tail := int64(4096); ; {
		tail = min(tail, size)
		b, err := bucket.Get(ctx, object, size-tail, tail)
		if err != nil {
			return nil, fmt.Errorf("get directory of %s: %w", object, err)
		}
		_, parts, err := segment.ParseDirectory(b)
		var need *segment.NeedTail
		switch {
		case err == nil:
			return parts, nil
		case errors.As(err, &need) && need.Bytes > tail && need.Bytes <= size:
			tail = need.Bytes
		case errors.As(err, &need):
			return nil, base.MarkCorruption(fmt.Errorf("directory of %s: %w", object, err))
		default:
			return nil, fmt.Errorf("directory of %s: %w", object, err)
		}
	}
}

// readSegment reads one whole segment past any cache, verified, and returns its body.
func readSegment(ctx context.Context, bucket objstore.Reader, id manifest.Identity, e manifest.Entry) ([]byte, error) {
	data, err := bucket.Get(ctx, e.Object, e.Pos, e.Len)
	if err != nil {
		return nil, fmt.Errorf("get %s at %d: %w", e.Object, e.Pos, err)
	}
	if crc := wire.Checksum(data); crc != e.CRC32C {
		return nil, base.MarkCorruption(fmt.Errorf("%s at %d: checksum %08x, the manifest says %08x", e.Object, e.Pos, crc, e.CRC32C))
	}
	f, err := segment.Check(data)
	if err != nil {
		return nil, err
	}
	if f.Log != id.Log || f.TopicID != id.TopicID || f.TP != id.TP || f.Base != e.Base || f.End != e.End || f.MaxTimestamp != e.MaxTimestamp || f.FooterBytes != e.TailBytes || f.LeaderEpoch != e.LeaderEpoch {
		return nil, base.MarkCorruption(fmt.Errorf("%s at %d holds %s [%d, %d), the manifest says %s [%d, %d)", e.Object, e.Pos, f.TP, f.Base, f.End, id.TP, e.Base, e.End))
	}
	return data[:f.BodyBytes], nil
}
