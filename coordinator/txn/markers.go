package txn

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
)

// courier does the slow work of one machine: each transaction in Prepare* has a goroutine until its markers are written, so that a
// partition without a leader holds up nobody else's. All end when the machine is no longer the shard's.
type courier struct {
	opts      *Options
	inst      *instruments
	log       *slog.Logger
	rt        *runtime.Runtime[*machine]
	group     *service.Group
	slots     chan struct{} // of MaxMarkerWrites, shared by all machines
	ctx       context.Context
	partition int32
}

// markers implements slowWork.
func (c *courier) markers(m *machine, t *transaction) {
	c.group.Go(func(context.Context) {
		if c.deliver(m.epoch, t) {
			c.tell(m, func(fx *runtime.Effects) { m.complete(fx, t) })
		}
	})
}

// deliver writes the markers of a transaction until each partition has its own or is gone. It reports false where it gave up: because
// of the end of the context, or because another coordinator or producer has taken over. Then the transaction stays in Prepare*
// until its partition is loaded again, as in Kafka.
func (c *courier) deliver(epoch base.LeaderEpoch, t *transaction) bool {
	marker := Marker{
		ProducerID: t.producerID, ProducerEpoch: t.epoch, CoordinatorEpoch: epoch, TransactionVersion: t.version,
		Commit: t.state == statePrepareCommit,
	}
	left := t.partitions
	for {
		if left = c.existing(left); len(left) == 0 {
			return true
		}
		errs, ok := c.round(marker, left)
		if !ok {
			return false
		}
		var again []base.TopicPartition
		var why error
		for i, tp := range left {
			switch err := errs[i]; {
			case err == nil:
			case errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.TransactionCoordinatorFenced):
				c.log.Warn("transaction marker fenced", slog.String("txn", t.id), slog.String("on", tp.String()), slog.Any("error", err))
				return false
			default:
				again, why = append(again, tp), err
			}
		}
		if left = again; len(left) == 0 {
			return true
		}
		c.log.Debug("transaction markers again", slog.String("txn", t.id), slog.Int("partitions", len(left)), slog.Any("error", why))
		c.inst.markerRetries.Add(c.ctx, 1)
		if !c.pause() {
			return false
		}
	}
}

// existing leaves out the partitions of deleted topics.
func (c *courier) existing(ps []base.TopicPartition) []base.TopicPartition {
	var out []base.TopicPartition
	for _, tp := range ps {
		if c.opts.PartitionExists(tp.Topic, tp.Partition) {
			out = append(out, tp)
		}
	}
	return out
}

// round writes a marker to the partitions once. It reports false when the context has ended.
func (c *courier) round(marker Marker, ps []base.TopicPartition) ([]error, bool) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
		return nil, false
	}
	c.inst.markerWrites.Add(c.ctx, 1)
	defer c.inst.markerWrites.Add(c.ctx, -1)
	errs := c.opts.WriteMarkers(c.ctx, marker, ps)
	return errs, c.ctx.Err() == nil
}

// spareID implements slowWork.
func (c *courier) spareID(m *machine) {
	c.group.Go(func(context.Context) {
		id, err := c.opts.NextProducerID(c.ctx)
		if err != nil {
			c.log.Warn("no producer id for a transaction that timed out", slog.Any("error", err))
			id = base.NoProducerID
		}
		c.tell(m, func(fx *runtime.Effects) { m.gotSpareID(fx, id) })
	})
}

// tell takes a step of the machine in its shard. A shard that loads will take it, as the machine is set to work just before it is
// loaded; one that has another machine by then has forgotten what this is about.
func (c *courier) tell(m *machine, step func(*runtime.Effects)) {
	for {
		_, err := c.rt.Call(c.ctx, c.partition, func(now *machine, fx *runtime.Effects, p *runtime.Promise) {
			if now == m {
				step(fx)
			}
			fx.ReplyNow(p, nil)
		})
		if !errors.Is(err, kerr.CoordinatorLoadInProgress) || !c.pause() {
			return
		}
	}
}

func (c *courier) pause() bool {
	t := c.opts.Clock.NewTimer(c.opts.MarkerBackoff)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}
