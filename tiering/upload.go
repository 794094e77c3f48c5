package tiering

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/manifest"
	"github.com/varvelog/varve/tiering/segment"
	"github.com/varvelog/varve/tiering/wire"
)

// uploaded is a sealed range whose objects are in the bucket, verified, but not committed.
type uploaded struct {
	from    SealedRange
	entries []manifest.Entry
	objects []string
}

// upload builds and writes the objects of a job.
func (t *Tiering) upload(ctx context.Context, j job) ([]uploaded, error) {
	ctx, span := t.o.Tracer.Start(ctx, "tiering.upload", trace.WithAttributes(attribute.String("partition", j.ranges[0].TP.String()), attribute.Int("ranges", len(j.ranges))))
	defer span.End()
	var out []uploaded
	var err error
	if j.pack() {
		out, err = t.uploadPack(ctx, j)
	} else {
		var u uploaded
		u, err = t.uploadRange(ctx, j)
		out = []uploaded{u}
	}
	if err != nil {
		span.RecordError(err)
		return nil, err
	}
	return out, nil
}

// uploadPack writes several short ranges as one object.
func (t *Tiering) uploadPack(ctx context.Context, j job) ([]uploaded, error) {
	var size int64
	for _, r := range j.ranges {
		size += r.Bytes + 4096
	}
	buf := t.buffers.take(size)
	out := make([]uploaded, len(j.ranges))
	parts := make([]segment.Part, len(j.ranges))
	for i, r := range j.ranges {
		b := segment.NewBuilder(buf, t.identity(r, r.Base), t.o.Layout)
		if err := t.o.Source.ReadSealed(ctx, r, b.Add); err != nil {
			return nil, fmt.Errorf("read sealed range [%d, %d) of %s: %w", r.Base, r.End, r.TP, err)
		}
		grown, built, err := b.Finish(tailOf(r))
		if err != nil {
			return nil, fmt.Errorf("build segment of %s: %w", r.TP, err)
		}
		buf = grown
		parts[i] = segment.Part{Log: r.Log, Pos: built.Pos, Len: built.Len, CRC32C: built.CRC32C, First: int64(r.Base), Last: int64(r.End)}
		out[i] = uploaded{from: r, entries: []manifest.Entry{entryOf(j.names[0], built)}, objects: j.names[:1]}
	}
	buf = segment.AppendDirectory(buf, segment.PackSegments, parts)
	for i := range out {
		out[i].entries[0].ObjectBytes = int64(len(buf))
	}
	err := t.put(ctx, j.names[0], buf)
	t.buffers.give(buf)
	return out, err
}

// uploadRange writes one range, cut into objects of at most MaxObjectBytes where a batch allows it.
func (t *Tiering) uploadRange(ctx context.Context, j job) (uploaded, error) {
	r := j.ranges[0]
	out := uploaded{from: r}
	size := min(r.Bytes, t.o.MaxObjectBytes)
	buf := t.buffers.take(size + size/512 + 4096)
	b := segment.NewBuilder(buf, t.identity(r, r.Base), t.o.Layout)
	finish := func(tail segment.Tail) (base.Offset, error) {
		object, built, err := b.Finish(tail)
		if err != nil {
			return 0, fmt.Errorf("build segment of %s: %w", r.TP, err)
		}
		name := j.names[len(out.objects)]
		entry := entryOf(name, built)
		entry.ObjectBytes = int64(len(object))
		out.entries, out.objects = append(out.entries, entry), append(out.objects, name)
		buf = object[:0]
		return entry.End, t.put(ctx, name, object)
	}
	err := t.o.Source.ReadSealed(ctx, r, func(batch record.Batch) error {
		if b.Len() > 0 && b.Len()+int64(len(batch)) > t.o.MaxObjectBytes && len(out.objects)+1 < len(j.names) {
			end, err := finish(segment.Tail{End: batch.BaseOffset(), Epochs: r.Epochs})
			if err != nil {
				return err
			}
			b = segment.NewBuilder(buf, t.identity(r, end), t.o.Layout)
		}
		return b.Add(batch)
	})
	if err != nil {
		return out, fmt.Errorf("read and upload sealed range [%d, %d) of %s: %w", r.Base, r.End, r.TP, err)
	}
	_, err = finish(tailOf(r))
	t.buffers.give(buf)
	return out, err
}

func (t *Tiering) identity(r SealedRange, first base.Offset) segment.Identity {
	return segment.Identity{Log: r.Log, TopicID: r.TopicID, TP: r.TP, Base: first, LeaderEpoch: r.LeaderEpoch, CreatedMs: t.o.Clock.Now().UnixMilli()}
}

func tailOf(r SealedRange) segment.Tail {
	return segment.Tail{End: r.End, Epochs: r.Epochs, Producers: r.Producers}
}

func entryOf(object string, b segment.Built) manifest.Entry {
	e := manifest.Entry{Object: object, Pos: b.Pos, Len: b.Len, TailBytes: b.Footer.FooterBytes, CRC32C: b.CRC32C, Base: b.Footer.Base, End: b.Footer.End, MaxTimestamp: b.Footer.MaxTimestamp, LeaderEpoch: b.Footer.LeaderEpoch}
	if b.Footer.Flags&segment.HasTransactions != 0 {
		e.Flags |= manifest.HasTransactions
	}
	return e
}

// put writes an object and returns once the bucket has it with the right size and checksum (I4). The same bytes under the
// same name may be written again, so an unknown outcome is simply retried. Nobody reads data after it returned.
func (t *Tiering) put(ctx context.Context, name string, data []byte) error {
	lent := lend(data)
	defer lent.revoke()
	body := objstore.Body{ReaderAt: lent, Size: int64(len(data)), CRC32C: wire.Checksum(data)}
	pause := t.o.RetryMin
	for attempt := 1; ; attempt++ {
		info, err := t.o.Bucket.Put(ctx, name, body)
		if errors.Is(err, objstore.ErrExists) { // our own earlier attempt, its answer was lost
			info, err = t.o.Bucket.Head(ctx, name)
		}
		if err == nil {
			err = t.verify(ctx, name, info, body)
		}
		t.metrics.put(ctx, int64(len(data)), err)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || attempt >= t.o.PutAttempts || base.IsCorruption(err) {
			return fmt.Errorf("upload %s: %w", name, err)
		}
		t.sleep(ctx, pause)
		pause = min(2*pause, t.o.RetryMax)
	}
}

// verify compares what the bucket says with what was sent; a bucket that knows no checksum is read back.
func (t *Tiering) verify(ctx context.Context, name string, info objstore.Info, body objstore.Body) error {
	crc := info.CRC32C
	if info.Size == body.Size && !info.HasCRC {
		b, err := t.get(ctx, readBack, name, 0, body.Size)
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		crc = wire.Checksum(b)
	}
	if info.Size != body.Size || crc != body.CRC32C {
		return base.MarkCorruption(fmt.Errorf("bucket holds %d bytes with checksum %08x, want %d with %08x", info.Size, crc, body.Size, body.CRC32C))
	}
	return nil
}
