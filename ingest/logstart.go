package ingest

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
)

// DeleteRecords moves the log start offset up to `to` (-1: to the high watermark), durably, and returns what the low watermark has to
// reach: AwaitLowWatermark. kerr.OffsetOutOfRange above the high watermark, kerr.PolicyViolation where the topic is only compacted.
func (g *Ingest) DeleteRecords(tp base.TopicPartition, to base.Offset) (goal base.Offset, err error) {
	p, err := g.Partition(tp)
	if err != nil {
		return base.NoOffset, err
	}
	if cfg := p.Config(); !cfg.Delete {
		return base.NoOffset, fmt.Errorf("delete records of %s: cleanup.policy is compact: %w", tp, kerr.PolicyViolation)
	}
	return p.advanceLogStart(to, true)
}

// AwaitLowWatermark waits until every live replica's log starts at goal or later, and returns the smallest of their log start offsets
// (Kafka: DelayedDeleteRecords). kerr.RequestTimedOut, with that offset, where ctx ends first; kerr.NotLeaderForPartition.
func (g *Ingest) AwaitLowWatermark(ctx context.Context, tp base.TopicPartition, goal base.Offset) (low base.Offset, err error) {
	p, err := g.Partition(tp)
	if err != nil {
		return base.NoOffset, err
	}
	for {
		low, moved, err := p.lowWatermark()
		if err != nil || low >= goal {
			return low, err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return low, fmt.Errorf("delete records of %s below %d: a live replica starts at %d: %w", tp, goal, low, kerr.RequestTimedOut)
		}
	}
}

// lowWatermark is the smallest log start offset of all live replicas, and what is closed when that may have moved.
func (p *Partition) lowWatermark() (low base.Offset, moved <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	switch {
	case m.err != nil:
		return base.NoOffset, nil, p.errLocked()
	case m.leader == nil: // the image says so, and this broker is about to see it
		return base.NoOffset, nil, p.wrap(kerr.NotLeaderForPartition)
	}
	if m.lowMoved == nil {
		m.lowMoved = make(chan struct{})
	}
	return m.leader.LowWatermark(m.logStart), m.lowMoved, nil
}

// lowMovedLocked wakes who waits for the low watermark.
func (p *Partition) lowMovedLocked() {
	if p.mu.lowMoved != nil {
		close(p.mu.lowMoved)
		p.mu.lowMoved = nil
	}
}

// AdvanceLogStart is DeleteRecords for retention: it moves the log start offset of a tiered log up, durably.
func (g *Ingest) AdvanceLogStart(_ context.Context, id base.LogID, to base.Offset) error {
	p := g.byLog(id)
	if p == nil {
		return errGone(id)
	}
	_, err := p.advanceLogStart(to, false)
	return err
}

// startAtRootLocked makes a leader's log start no earlier than its manifest: nobody has what is below, and only an earlier leader, which
// moved the log start before the manifest, may have known. The offset stays at or below the high watermark, which a new leader may have
// yet to learn; followers take it from the leader. The root is durable, and recovery starts at it: the row can wait for a checkpoint.
func (p *Partition) startAtRootLocked() {
	m := &p.mu
	to := min(m.rootStart, m.highWater)
	if m.leader == nil || to <= m.logStart {
		return
	}
	p.g.log.Info("log starts where its manifest does", slog.String("partition", m.tp.String()),
		slog.Int64("from", int64(m.logStart)), slog.Int64("to", int64(to)))
	m.logStart, m.unsaved = to, true
	for feed := range m.feeds {
		feed.mark(p, false)
	}
	p.wakeLocked()
	p.g.work.add(p)
}

// advanceLogStart is DeleteRecords; loud: followers are told at once.
func (p *Partition) advanceLogStart(to base.Offset, loud bool) (base.Offset, error) {
	commit, goal, err := p.moveLogStart(to, loud)
	if commit == nil || err != nil {
		return goal, err
	}
	p.g.work.add(p)
	if err := commit.Wait(); err != nil {
		return base.NoOffset, fmt.Errorf("delete records: %w: %w", kerr.KafkaStorageError, err)
	}
	return goal, nil
}

// moveLogStart moves the offset and applies the row that says so; commit is nil where it is there already.
func (p *Partition) moveLogStart(to base.Offset, loud bool) (commit *hot.Commit, goal base.Offset, err error) {
	p.order.Lock()
	defer p.order.Unlock()
	p.mu.Lock()
	m := &p.mu
	if to == -1 {
		to = m.highWater
	}
	if err = p.errLocked(); err == nil && (to < 0 || to > m.highWater) {
		err = fmt.Errorf("delete records of %s below %d: high watermark is %d: %w", m.tp, to, m.highWater, kerr.OffsetOutOfRange)
	}
	if err != nil || to <= m.logStart {
		defer p.mu.Unlock()
		return nil, to, err
	}
	m.logStart = to
	w := p.g.store.NewWrite()
	p.putMetaLocked(w)
	for feed := range m.feeds {
		feed.mark(p, loud)
	}
	p.wakeLocked()
	p.mu.Unlock()
	if commit, err = p.g.store.Apply(w); err != nil {
		return nil, base.NoOffset, fmt.Errorf("delete records: %w: %w", kerr.KafkaStorageError, err)
	}
	return commit, to, nil
}
