package tiering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
)

// AbortedTxn is an aborted transaction (KIP-98).
type AbortedTxn = segment.AbortedTxn

// Reader serves tiered ranges. What it returns equals what the hot store returned for the same offsets (I8). Safe for
// concurrent use.
type Reader struct{ t *Tiering }

// Bounds is what is tiered: [Start, End) and its cost.
type Bounds struct {
	Start, End     base.Offset
	Bytes, Objects int64
}

// Bounds answers from memory; ok is false where nothing of the log was ever tiered. Start is the log start offset as of the
// manifest; where all was dropped it is not below End.
func (r *Reader) Bounds(log base.LogID) (Bounds, bool) {
	st, ok := r.t.roots.get(log)
	return Bounds{Start: st.root.Start, End: st.root.TieredEnd, Bytes: st.root.Bytes, Objects: st.root.Objects}, ok
}

// Read returns whole batches starting with the one that contains from, about maxBytes, at least one. It does not cross
// the tiered end. kerr.OffsetOutOfRange where nothing tiered holds from. The batches share the cache's memory and must not
// be modified.
func (r *Reader) Read(ctx context.Context, log base.LogID, from base.Offset, maxBytes int) ([]record.Batch, error) {
	e, m, err := r.entryAt(ctx, log, from)
	if err != nil {
		return nil, err
	}
	var out []record.Batch
	for left := maxBytes; ; {
		batches, n, done, err := r.readSegment(ctx, m, e, from, left, len(out) == 0)
		if err != nil {
			if len(out) > 0 { // what was read is good; the error comes back with the next read
				return out, nil
			}
			return nil, fmt.Errorf("read %s at %d: %w", m.TP, from, err)
		}
		out, left = append(out, batches...), left-n
		switch {
		case left <= 0 && len(out) > 0, !done && n == 0, done && e.End >= m.End:
			return out, nil
		case !done:
			from = out[len(out)-1].NextOffset()
			continue
		}
		from = e.End
		if e, err = r.find(ctx, m, from); err != nil {
			return out, nil
		}
	}
}

// Missing reports whether a read failed because the bucket does not have an object that a manifest names: it was lost, or it
// is another bucket.
func Missing(err error) bool { return errors.Is(err, objstore.ErrNotFound) }

// manifest loads the current manifest. A manifest object that is gone means that the root in memory is old.
func (r *Reader) manifest(ctx context.Context, log base.LogID) (*manifest.Manifest, error) {
	m, err := r.t.Manifest(ctx, log)
	if !errors.Is(err, objstore.ErrNotFound) {
		return m, err
	}
	if err := r.t.Refresh(ctx, log, base.NoLeaderEpoch); err != nil {
		return nil, err
	}
	return r.t.Manifest(ctx, log)
}

// entryAt finds the segment that holds from.
func (r *Reader) entryAt(ctx context.Context, log base.LogID, from base.Offset) (manifest.Entry, *manifest.Manifest, error) {
	m, err := r.manifest(ctx, log)
	if err != nil {
		return manifest.Entry{}, nil, err
	}
	if m == nil {
		return manifest.Entry{}, nil, fmt.Errorf("log %s has nothing tiered: %w", log, kerr.OffsetOutOfRange)
	}
	e, err := r.find(ctx, m, from)
	return e, m, err
}

func (r *Reader) find(ctx context.Context, m *manifest.Manifest, from base.Offset) (manifest.Entry, error) {
	i, archived, ok := m.Find(from)
	if !ok {
		return manifest.Entry{}, fmt.Errorf("offset %d of %s, tiered are [%d, %d): %w", from, m.TP, m.Start(), m.End, kerr.OffsetOutOfRange)
	}
	if !archived {
		return m.Entries[i], nil
	}
	a, err := r.t.archiveAt(ctx, m.Archives[i])
	if err != nil {
		return manifest.Entry{}, err
	}
	j, ok := a.Find(from)
	if !ok {
		return manifest.Entry{}, base.MarkCorruption(fmt.Errorf("archive %s does not hold offset %d", m.Archives[i].Object, from))
	}
	return a.Entries[j], nil
}

// readSegment reads at most maxBytes of one segment from the batch that holds from on, and no further than one unit of the
// cache, so that the batches share its memory. With must at least one batch is returned however long it is. done means
// that the segment's end was reached.
func (r *Reader) readSegment(ctx context.Context, m *manifest.Manifest, e manifest.Entry, from base.Offset, maxBytes int, must bool) (out []record.Batch, n int, done bool, err error) {
	f, err := r.footer(ctx, e)
	if err != nil {
		return nil, 0, false, err
	}
	i := f.Locate(from)
	pos := f.Index[i].Position
	want := r.unitEnd(e, f, pos, f.StretchEnd(i)+int64(max(maxBytes, 0)))
	r.readAhead(m, e, f, want)
	data, err := r.body(ctx, e, f, pos, want)
	if err != nil {
		return nil, 0, false, err
	}
	for pos < f.BodyBytes {
		b, rest, err := record.Split(data)
		if err != nil {
			length, short := missing(data)
			if !short {
				return nil, 0, false, base.MarkCorruption(fmt.Errorf("segment %s at %d: batch at %d: %w", e.Object, e.Pos, pos, err))
			}
			if len(out) > 0 || !must && length > int64(maxBytes) {
				return out, n, false, nil
			}
			if data, err = r.body(ctx, e, f, pos, pos+length); err != nil { // a batch that crosses the unit's end
				return nil, 0, false, err
			}
			continue
		}
		if b.NextOffset() > from {
			if (len(out) > 0 || !must) && n+len(b) > maxBytes {
				return out, n, false, nil
			}
			out, n = append(out, b), n+len(b)
		}
		data, pos = rest, pos+int64(len(b))
	}
	return out, n, true, nil
}

// unitEnd shortens a read of the body [pos, to) so that it ends with the unit of the object that pos lies in. Units are the
// cache's blocks: a range within one is served without a copy.
func (r *Reader) unitEnd(e manifest.Entry, f *segment.Footer, pos, to int64) int64 {
	unit := r.t.o.ReadUnitBytes
	end := (e.Pos+pos)/unit*unit + unit - e.Pos
	end = end / f.BlockBytes * f.BlockBytes
	if end > pos {
		to = min(to, end)
	}
	return min(to, f.BodyBytes)
}

// missing reports whether data is only the beginning of a batch, and how long that is (at least).
func missing(data []byte) (length int64, short bool) {
	if len(data) < record.HeaderSize {
		return record.HeaderSize, true
	}
	length = 12 + int64(uint32(data[8])<<24|uint32(data[9])<<16|uint32(data[10])<<8|uint32(data[11]))
	return length, int64(len(data)) < length
}

// footer loads a segment's footer through the cache and checks it against the manifest: whoever reads the segment needs what
// lies around it too.
func (r *Reader) footer(ctx context.Context, e manifest.Entry) (*segment.Footer, error) {
	key := manifest.ArchiveKey{Object: e.Object, Pos: e.Pos}
	if f, ok := r.t.footers.get(key); ok {
		return f, nil
	}
	off := e.Pos + e.Len - e.TailBytes
	tail, err := r.t.cached(ctx, readFooter, e, off, e.TailBytes)
	if err != nil {
		return nil, fmt.Errorf("footer of %s at %d: %w", e.Object, e.Pos, err)
	}
	f, err := checkFooter(tail, e)
	if err != nil {
		if tail, err = r.refetch(ctx, readFooter, e, off, e.TailBytes, err); err != nil {
			return nil, err
		}
		if f, err = checkFooter(tail, e); err != nil {
			return nil, err
		}
	}
	r.t.footers.put(key, f)
	return f, nil
}

// loneFooter loads a segment's footer alone, for somebody who wants nothing else of the segment: the exact range, a few hundred
// bytes to a few KiB, where the cache would download the blocks that it lies in.
func (r *Reader) loneFooter(ctx context.Context, e manifest.Entry) (*segment.Footer, error) {
	key := manifest.ArchiveKey{Object: e.Object, Pos: e.Pos}
	if f, ok := r.t.footers.get(key); ok {
		return f, nil
	}
	tail, err := r.t.get(ctx, readFooter, e.Object, e.Pos+e.Len-e.TailBytes, e.TailBytes)
	if err != nil {
		return nil, fmt.Errorf("footer of %s at %d: %w", e.Object, e.Pos, err)
	}
	f, err := checkFooter(tail, e)
	if err != nil {
		return nil, err
	}
	r.t.footers.put(key, f)
	return f, nil
}

func checkFooter(tail []byte, e manifest.Entry) (*segment.Footer, error) {
	f, err := segment.ParseFooter(tail)
	var need *segment.NeedTail
	switch {
	case errors.As(err, &need):
		return nil, base.MarkCorruption(fmt.Errorf("footer of %s at %d: %w", e.Object, e.Pos, err))
	case err != nil:
		return nil, fmt.Errorf("footer of %s at %d: %w", e.Object, e.Pos, err)
	case f.Base != e.Base || f.End != e.End || f.FooterBytes != e.TailBytes || f.BodyBytes+f.FooterBytes != e.Len:
		return nil, base.MarkCorruption(fmt.Errorf("footer of %s at %d is of [%d, %d), the manifest says [%d, %d)", e.Object, e.Pos, f.Base, f.End, e.Base, e.End))
	}
	return f, nil
}

// body reads and verifies body bytes from position from up to at least to, or to the body's end.
func (r *Reader) body(ctx context.Context, e manifest.Entry, f *segment.Footer, from, to int64) ([]byte, error) {
	lo, hi := f.Align(from, min(to, f.BodyBytes))
	data, err := r.t.cached(ctx, readBody, e, e.Pos+lo, hi-lo)
	if err != nil {
		return nil, fmt.Errorf("body of %s at %d: %w", e.Object, e.Pos+lo, err)
	}
	if err := f.Verify(lo, data); err != nil {
		if data, err = r.refetch(ctx, readBody, e, e.Pos+lo, hi-lo, err); err != nil {
			return nil, err
		}
		if err := f.Verify(lo, data); err != nil {
			return nil, err
		}
	}
	return data[from-lo:], nil
}

// refetch reads a range past the cache after a checksum did not hold, once: a cache may have been damaged where the object
// is whole. cause is returned where that is no help.
func (r *Reader) refetch(ctx context.Context, kind readKind, e manifest.Entry, off, length int64, cause error) ([]byte, error) {
	r.t.o.Logger.Warn("cached bytes do not match their checksum", slog.String("object", e.Object), slog.Int64("offset", off), slog.Any("error", cause))
	if r.t.o.Cache != nil {
		r.t.o.Cache.Drop(e.Object)
	}
	b, err := r.t.get(ctx, kind, e.Object, off, length)
	if err != nil {
		return nil, errors.Join(cause, fmt.Errorf("read %s again: %w", e.Object, err))
	}
	return b, nil
}

// readAheadSegments bounds how many segments one read looks ahead, however short they are.
const readAheadSegments = 8

// readAhead prefetches what a sequential reader wants after position pos: more of this segment, then footers and beginnings
// of those that follow.
func (r *Reader) readAhead(m *manifest.Manifest, e manifest.Entry, f *segment.Footer, pos int64) {
	if r.t.o.Cache == nil {
		return
	}
	left := r.t.o.ReadAheadBytes
	if n := min(f.BodyBytes-pos, left); n > 0 {
		r.t.o.Cache.Prefetch(e.Object, e.ObjectBytes, e.Pos+pos, n)
		left -= n
	}
	i, archived, ok := m.Find(e.End)
	for n := 0; ok && !archived && i < len(m.Entries) && left > 0 && n < readAheadSegments; n++ {
		next := m.Entries[i]
		r.t.o.Cache.Prefetch(next.Object, next.ObjectBytes, next.Pos+next.Len-next.TailBytes, next.TailBytes)
		head := min(left, next.Len-next.TailBytes)
		r.t.o.Cache.Prefetch(next.Object, next.ObjectBytes, next.Pos, head)
		left -= head
		i++
	}
}

// cached reads through the cache where there is one.
func (t *Tiering) cached(ctx context.Context, kind readKind, e manifest.Entry, off, length int64) ([]byte, error) {
	if t.o.Cache == nil {
		return t.get(ctx, kind, e.Object, off, length)
	}
	return t.o.Cache.ReadAt(ctx, e.Object, e.ObjectBytes, off, int(length))
}

// Aborted lists aborted transactions that overlap [from, to), in offset order.
func (r *Reader) Aborted(ctx context.Context, log base.LogID, from, to base.Offset) ([]AbortedTxn, error) {
	var out []AbortedTxn
	err := r.scan(ctx, log, from, nil, func(e manifest.Entry) (bool, error) {
		if e.Base >= to {
			return false, nil
		}
		if e.Flags&manifest.HasTransactions == 0 {
			return true, nil
		}
		f, err := r.footer(ctx, e)
		if err != nil {
			return false, err
		}
		for _, a := range f.Aborted {
			if a.FirstOffset < to && a.LastOffset >= from {
				out = append(out, a)
			}
		}
		return true, nil
	})
	return out, err
}

// scan calls fn for the named segments that end behind from, oldest first, until it returns false. Archives of which skip
// says so are not looked into; skip may be nil.
func (r *Reader) scan(ctx context.Context, log base.LogID, from base.Offset, skip func(manifest.ArchiveRef) bool, fn func(manifest.Entry) (bool, error)) error {
	m, err := r.manifest(ctx, log)
	if err != nil || m == nil {
		return err
	}
	var inner error
	err = r.t.entriesFrom(ctx, m, from, skip, func(e manifest.Entry) bool {
		more, err := fn(e)
		inner = err
		return more && err == nil
	})
	return errors.Join(err, inner)
}
