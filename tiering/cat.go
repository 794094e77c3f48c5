package tiering

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/manifest"
)

// CatOptions says which records Cat reads.
type CatOptions struct {
	Topic      string
	Partition  int32
	FromOffset base.Offset
	ByTime     bool  // start at the first record whose timestamp is at least FromTimeMs, not before FromOffset
	FromTimeMs int64 // milliseconds since the Unix epoch
}

// ErrStop ends Cat early without an error.
var ErrStop = errors.New("stop")

// Cat calls emit for the records of a partition in offset order, from the bucket alone, each with the batch that holds it
// (a control batch is for the caller to skip). kerr.UnknownTopicOrPartition where the bucket has nothing of it. Of several
// topics that had the name one after the other, the last is taken.
func Cat(ctx context.Context, bucket ReadOnlyBucket, o CatOptions, emit func(record.Batch, record.Record) error) error {
	inv, err := TakeInventory(ctx, bucket)
	if err != nil {
		return err
	}
	var v *Version
	for log, found := range inv.Latest() {
		if found.TP == (base.TopicPartition{Topic: o.Topic, Partition: o.Partition}) && (v == nil || log > v.Log) {
			v = found
		}
	}
	if v == nil {
		return fmt.Errorf("%s-%d is not in the bucket: %w", o.Topic, o.Partition, kerr.UnknownTopicOrPartition)
	}
	c := &catter{o: o, from: max(o.FromOffset, v.LogStart), started: !o.ByTime, emit: emit}
	var none Report
	for _, s := range inv.segmentsOf(v, &none) {
		if err := c.segment(ctx, bucket, v.Identity, s.e); err != nil {
			if errors.Is(err, ErrStop) {
				return nil
			}
			return err
		}
	}
	if len(none.CorruptDetails)+len(inv.Missing) > 0 {
		return base.MarkCorruption(fmt.Errorf("archives of %s are missing or damaged", v.TP))
	}
	return nil
}

type catter struct {
	o       CatOptions
	from    base.Offset
	started bool
	emit    func(record.Batch, record.Record) error
}

// segment emits the wanted records of one segment.
func (c *catter) segment(ctx context.Context, bucket ReadOnlyBucket, id manifest.Identity, e manifest.Entry) error {
	if e.End <= c.from || !c.started && e.MaxTimestamp < c.o.FromTimeMs {
		return nil
	}
	body, err := readSegment(ctx, bucket, id, e)
	if err != nil {
		return err
	}
	for len(body) > 0 {
		b, rest, err := record.Split(body)
		if err != nil {
			return fmt.Errorf("segment %s: %w", e.Object, err)
		}
		body = rest
		var inner error
		err = b.Each(func(r record.Record) bool {
			c.started = c.started || r.Offset >= c.from && r.Timestamp >= c.o.FromTimeMs
			if c.started && r.Offset >= c.from {
				inner = c.emit(b, r)
			}
			return inner == nil
		})
		if err := errors.Join(err, inner); err != nil {
			return err
		}
	}
	return nil
}
