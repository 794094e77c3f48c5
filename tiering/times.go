package tiering

import (
	"context"
	"fmt"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
)

// OffsetForTime finds the first tiered record at or after offset from whose timestamp is >= ts (milliseconds).
func (r *Reader) OffsetForTime(ctx context.Context, log base.LogID, ts int64, from base.Offset) (off base.Offset, timestamp int64, ok bool, err error) {
	m, err := r.manifest(ctx, log)
	if err != nil || m == nil {
		return base.NoOffset, -1, false, err
	}
	from = max(from, m.LogStart)
	off, timestamp = base.NoOffset, -1
	tooOld := func(a manifest.ArchiveRef) bool { return a.MaxTimestamp < ts }
	err = r.scan(ctx, log, from, tooOld, func(e manifest.Entry) (bool, error) {
		if e.MaxTimestamp < ts {
			return true, nil
		}
		var err error
		off, timestamp, ok, err = r.firstAtLeast(ctx, e, ts, from)
		return !ok, err
	})
	return off, timestamp, ok, err
}

// MaxTimestamp finds the tiered record with the largest timestamp, the earliest such. ok is false where there is none.
func (r *Reader) MaxTimestamp(ctx context.Context, log base.LogID) (off base.Offset, timestamp int64, ok bool, err error) {
	m, err := r.manifest(ctx, log)
	if err != nil || m == nil {
		return base.NoOffset, -1, false, err
	}
	best := manifest.Entry{MaxTimestamp: -1}
	off, timestamp = base.NoOffset, -1
	lower := func(a manifest.ArchiveRef) bool {
		return a.Base >= m.LogStart && a.MaxTimestamp <= max(best.MaxTimestamp, timestamp)
	}
	err = r.scan(ctx, log, m.LogStart, lower, func(e manifest.Entry) (bool, error) {
		if e.Base < m.LogStart { // the largest may lie below the log start: look at the records
			var err error
			off, timestamp, ok, err = r.largest(ctx, e, m.LogStart)
			return true, err
		}
		if e.MaxTimestamp > max(best.MaxTimestamp, timestamp) {
			best = e
		}
		return true, nil
	})
	if err != nil || best.Object == "" {
		return off, timestamp, ok, err
	}
	return r.firstAtLeast(ctx, best, best.MaxTimestamp, best.Base)
}

// firstAtLeast finds the first record of a segment at or after from with a timestamp of at least ts.
func (r *Reader) firstAtLeast(ctx context.Context, e manifest.Entry, ts int64, from base.Offset) (off base.Offset, timestamp int64, ok bool, err error) {
	f, err := r.footer(ctx, e)
	if err != nil {
		return base.NoOffset, -1, false, err
	}
	mark, ok := f.LocateTime(ts)
	if !ok {
		return base.NoOffset, -1, false, nil
	}
	off, timestamp, ok = base.NoOffset, -1, false
	err = r.eachBatch(ctx, e, f, max(mark, f.Locate(from)), func(b record.Batch) (bool, error) {
		if b.MaxTimestamp() < ts || b.NextOffset() <= from {
			return true, nil
		}
		err := b.Each(func(rec record.Record) bool {
			if rec.Offset >= from && rec.Timestamp >= ts {
				off, timestamp, ok = rec.Offset, rec.Timestamp, true
			}
			return !ok
		})
		return !ok, err
	})
	return off, timestamp, ok, err
}

// largest finds the first record with the largest timestamp at or after from in a segment, by looking at all of them.
func (r *Reader) largest(ctx context.Context, e manifest.Entry, from base.Offset) (off base.Offset, timestamp int64, ok bool, err error) {
	f, err := r.footer(ctx, e)
	if err != nil {
		return base.NoOffset, -1, false, err
	}
	off, timestamp = base.NoOffset, -1
	err = r.eachBatch(ctx, e, f, f.Locate(from), func(b record.Batch) (bool, error) {
		if b.MaxTimestamp() <= timestamp || b.NextOffset() <= from {
			return true, nil
		}
		return true, b.Each(func(rec record.Record) bool {
			if rec.Offset >= from && rec.Timestamp > timestamp {
				off, timestamp, ok = rec.Offset, rec.Timestamp, true
			}
			return true
		})
	})
	return off, timestamp, ok, err
}

// eachBatch calls fn for the batches of a segment from an index mark on until it returns false. It reads stretch by
// stretch, so that a look-up that ends early costs little.
func (r *Reader) eachBatch(ctx context.Context, e manifest.Entry, f *segment.Footer, mark int, fn func(record.Batch) (bool, error)) error {
	for ; mark < len(f.Index); mark++ {
		from, to := f.Index[mark].Position, f.StretchEnd(mark)
		data, err := r.body(ctx, e, f, from, to)
		if err != nil {
			return err
		}
		for data = data[:to-from]; len(data) > 0; {
			b, rest, err := record.Split(data)
			if err != nil {
				return base.MarkCorruption(fmt.Errorf("segment %s at %d: batch in stretch %d: %w", e.Object, e.Pos, mark, err))
			}
			if more, err := fn(b); !more || err != nil {
				return err
			}
			data = rest
		}
	}
	return nil
}
