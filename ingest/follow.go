package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// followerPatience is how long a follower's write waits for room among the appends that wait for the disk.
const followerPatience = 10 * time.Second

// FollowerWrite is what one fetch from the leader brought for one log. Its parts apply in the order of the fields.
type FollowerWrite struct {
	Log base.LogID
	// Epoch is the leader epoch that the fetch was made under. A log that follows another one by now refuses the write.
	Epoch base.LeaderEpoch
	// StartOver, where it is not nil, drops what is hot and goes on from there: the log is new here, or what would come next is
	// not hot on the leader.
	StartOver *FollowerStart
	// TruncateTo drops what reaches this offset or lies behind it (I2); base.NoOffset: nothing.
	TruncateTo base.Offset
	// Batches continue the log without a gap, with a valid CRC and the leader's epochs. They are copied.
	Batches []record.Batch
	// HighWatermark and LogStart are the leader's.
	HighWatermark, LogStart base.Offset
}

// FollowerStart is where a log goes on that has nothing hot: the end of the tiered range, with what is known there.
type FollowerStart struct {
	At        base.Offset
	LogStart  base.Offset // what is below is deleted
	Epochs    []base.EpochStart
	Producers []byte // a snapshot as in the row of a sealed range; empty: none
}

// follow makes the partition take its batches from another broker.
func (p *Partition) follow(state *metadata.Partition, topic *metadata.Topic) {
	p.cfg.Store(topic.Config)
	p.mu.Lock()
	m := &p.mu
	m.rev = state.Rev
	answers := p.resignLocked(kerr.NotLeaderForPartition)
	m.tp, m.topicID, m.following = state.TP, state.TopicID, state.LeaderEpoch
	if m.err == nil {
		p.cutEpochsLocked(m.end) // one that this broker led without a record
	}
	if !m.damaged {
		m.err = kerr.NotLeaderForPartition
	}
	p.wakeLocked()
	p.mu.Unlock()
	p.g.settle(answers)
}

// cutEpochsLocked forgets the epochs that start at end or behind it.
func (p *Partition) cutEpochsLocked(end base.Offset) {
	m := &p.mu
	m.epochs, m.epoch = replica.TruncateEpochs(m.epochs, end), base.NoLeaderEpoch
	if n := len(m.epochs); n > 0 {
		m.epoch = m.epochs[n-1].Epoch
	}
	m.unsaved = true
}

// ApplyFollower writes what one response of a leader brought for any number of logs, each at most once, as one batch, and
// returns when that is on stable storage: from then on the offsets of the next fetch may acknowledge it (I1). A log whose part
// does not fit stays as it was, and its place in the result says why; the others go on. The batches are the caller's again
// afterwards. One caller at a time for each log.
func (g *Ingest) ApplyFollower(ctx context.Context, writes []FollowerWrite) []error {
	errs := make([]error, len(writes))
	refuse := func(err error) []error {
		for i := range errs {
			errs[i] = errors.Join(errs[i], err)
		}
		return errs
	}
	size := int64(pendingOverheadBytes)
	for i := range writes {
		size += sizeOf(writes[i].Batches)
	}
	if err := g.pipe.enter(ctx, size, g.clock.Now().Add(followerPatience)); err != nil {
		return refuse(err)
	}
	defer g.pipe.leave(size)
	w := g.store.NewWriteSize(int(size))
	applied, commit, err := g.orderFollower(w, writes, errs)
	if err == nil && commit != nil {
		err = commit.Wait()
	}
	if err != nil {
		return refuse(fmt.Errorf("replicate: %w: %w", kerr.KafkaStorageError, err))
	}
	for _, f := range applied {
		f.synced()
	}
	return errs
}

func sizeOf(batches []record.Batch) (n int64) {
	for _, b := range batches {
		n += int64(len(b))
	}
	return n
}

// orderFollower applies the parts to their logs' states and to w, and w to the store, under the logs' order locks.
func (g *Ingest) orderFollower(w *hot.Write, writes []FollowerWrite, errs []error) (applied []*follower, commit *hot.Commit, err error) {
	var locked []*Partition
	defer func() {
		for _, p := range locked {
			p.order.Unlock()
		}
	}()
	order := make([]int, len(writes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(int64(writes[a].Log) - int64(writes[b].Log)) })
	for _, i := range order {
		p := g.byLog(writes[i].Log)
		if p == nil {
			errs[i] = errGone(writes[i].Log)
			continue
		}
		p.order.Lock()
		locked = append(locked, p)
		f := &follower{p: p, in: &writes[i], w: w}
		if errs[i] = f.apply(g.clock.Now().UnixMilli()); errs[i] == nil {
			applied = append(applied, f)
		}
		if f.cut {
			g.tail.dropPartition(p)
		}
	}
	if !slices.ContainsFunc(applied, func(f *follower) bool { return f.wrote }) {
		w.Discard()
		return applied, nil, nil
	}
	if commit, err = g.store.Apply(w); err != nil {
		for _, f := range applied {
			f.p.damage(err)
		}
	}
	return applied, commit, err
}

// follower applies one FollowerWrite. The partition's order is held: nothing else moves its end, its ranges or its index.
type follower struct {
	p     *Partition
	in    *FollowerWrite
	w     *hot.Write
	end   base.Offset // of the log, once applied
	cuts  int         // of the partition then
	wrote bool        // w holds something of it
	cut   bool        // what was in the tail may be gone
}

// apply checks the write as a whole before it changes anything.
func (f *follower) apply(nowMs int64) error {
	from, old, err := f.start()
	if err != nil {
		return err
	}
	if err := f.dense(from); err != nil {
		return err
	}
	var cut truncation
	if f.in.StartOver == nil && from < old {
		if cut, err = f.p.planTruncation(from, old); err != nil {
			return err
		}
	}
	m := &f.p.mu
	m.Lock()
	defer m.Unlock()
	if err := f.followsLocked(); err != nil { // the image may have moved on meanwhile
		return err
	}
	switch {
	case f.in.StartOver != nil:
		if err := f.startOverLocked(); err != nil {
			return err
		}
	case from < old:
		f.truncateLocked(&cut, nowMs)
	case f.in.TruncateTo != base.NoOffset:
		f.p.cutEpochsLocked(m.end)
	}
	for _, b := range f.in.Batches {
		if f.p.mustRollLocked(b) {
			f.p.sealLocked(f.w, nowMs)
		}
		f.p.noteEpochLocked(b.LeaderEpoch(), b.BaseOffset())
		f.p.noteLocked(f.w, b, nowMs)
		f.w.Append(f.p.log, b)
	}
	f.wrote = f.wrote || len(f.in.Batches) > 0
	if f.wrote && (!m.stored || m.stale || from < old || f.in.StartOver != nil) { // no row may speak of an end that is not there any more
		f.p.putMetaLocked(f.w)
	}
	f.end, f.cuts = m.end, m.cuts
	f.p.g.work.add(f.p)
	return nil
}

// followsLocked reports why the log does not take this write.
func (f *follower) followsLocked() error {
	m := &f.p.mu
	switch {
	case m.dropped, m.damaged && f.in.StartOver == nil:
		return f.p.errLocked()
	case m.former:
		return f.p.wrap(errFormer)
	case m.err == nil || m.following != f.in.Epoch:
		return fmt.Errorf("replicate %s under epoch %d, now %d: %w", m.tp, f.in.Epoch, max(m.following, m.epoch), kerr.FencedLeaderEpoch)
	}
	return nil
}

// start is where the batches of the write go: behind what a truncation leaves, or the log end; and what the log end is now.
func (f *follower) start() (from, old base.Offset, err error) {
	m := &f.p.mu
	m.Lock()
	err = f.followsLocked()
	old, hotStart := m.end, m.hotStart
	m.Unlock()
	to := f.in.TruncateTo
	switch {
	case err != nil:
		return 0, 0, err
	case f.in.StartOver != nil:
		return f.in.StartOver.At, old, nil
	case to == base.NoOffset || to >= old:
		return old, old, nil
	case to < hotStart: // not below what is tiered: here may lie what the leader never had (safeLocked)
		return 0, 0, fmt.Errorf("truncate log %s to %d, hot from %d: %w", f.p.log, to, hotStart, kerr.OffsetOutOfRange)
	}
	bs, err := f.p.g.store.Read(f.p.log, to, old, 1)
	if err != nil {
		return 0, 0, fmt.Errorf("truncate log %s to %d: %w", f.p.log, to, err)
	}
	if len(bs) > 0 { // a batch that reaches the offset goes whole
		to = min(to, bs[0].BaseOffset())
	}
	return to, old, nil
}

// dense checks that the batches continue the log at from, and that their epochs do not fall or pass the leader's.
func (f *follower) dense(from base.Offset) error {
	epoch := base.NoLeaderEpoch
	for _, b := range f.in.Batches {
		if b.BaseOffset() != from || b.LeaderEpoch() < epoch || b.LeaderEpoch() > f.in.Epoch {
			return base.MarkCorruption(fmt.Errorf("replicate log %s at %d: a batch at %d with epoch %d after epoch %d, leader's %d",
				f.p.log, from, b.BaseOffset(), b.LeaderEpoch(), epoch, f.in.Epoch))
		}
		from, epoch = b.NextOffset(), b.LeaderEpoch()
	}
	return nil
}

// truncation is what a truncation needs to know before it begins.
type truncation struct {
	end   base.Offset    // of the log afterwards
	open  base.Offset    // start of the range that is open afterwards
	bytes int64          // of [open, old end)
	kept  []record.Batch // [open, end): its counters are made again from these
}

// planTruncation reads what is needed to make the log end at end instead of old.
func (p *Partition) planTruncation(end, old base.Offset) (t truncation, err error) {
	p.mu.Lock()
	t.end, t.open = end, p.mu.hotStart
	for i := range p.mu.sealed {
		if p.mu.sealed[i].End <= end {
			t.open = p.mu.sealed[i].End
		}
	}
	p.mu.Unlock()
	if t.bytes, err = p.g.store.Size(p.log, t.open, old); err != nil {
		return t, fmt.Errorf("truncate log %s: %w", p.log, err)
	}
	t.kept, err = p.readRange(t.open, end)
	return t, err
}

// readRange reads hot batches [from, end) whether they are visible or not.
func (p *Partition) readRange(from, end base.Offset) (out []record.Batch, err error) {
	err = p.eachStored(from, end, func(b record.Batch) { out = append(out, b) })
	return out, err
}

// truncateLocked makes the log end earlier.
func (f *follower) truncateLocked(t *truncation, nowMs int64) {
	p, m := f.p, &f.p.mu
	if t.end < m.highWater {
		p.g.log.Warn("truncation below the high watermark: an unclean election", slog.String("partition", m.tp.String()),
			slog.Int64("to", int64(t.end)), slog.Int64("high_watermark", int64(m.highWater)))
		m.highWater = t.end
	}
	m.durable = min(m.durable, t.end)
	m.cuts++
	f.w.Truncate(p.log, t.end, m.end)
	f.wrote = true
	m.tail, f.cut = batchQueue{}, true
	p.cutEpochsLocked(t.end)
	m.producers = p.producersAtLocked(t.open)
	m.sealed = slices.DeleteFunc(slices.Clone(m.sealed), func(s hot.Sealed) bool { return s.End > t.open })
	m.index = slices.DeleteFunc(slices.Clone(m.index), func(e hot.IndexEntry) bool { return e.Offset >= t.open })
	m.maxTs = -1
	for i := range m.sealed {
		m.maxTs = max(m.maxTs, m.sealed[i].MaxTimestamp)
	}
	if n := len(m.index); n > 0 {
		m.maxTs = max(m.maxTs, m.index[n-1].MaxTimestamp)
	}
	m.active, m.end, m.bytes = openRange{base: t.open, maxTs: -1}, t.open, m.bytes-t.bytes
	for _, b := range t.kept {
		p.noteLocked(nil, b, nowMs)
	}
}

// producersAtLocked is the producer state as of off, the end of a sealed range or the hot start: what is remembered of the batches
// before it, and the snapshot of the range, which knows older ones.
func (p *Partition) producersAtLocked(off base.Offset) producerTable {
	out := producerTable{}
	for id, s := range p.mu.producers {
		kept := &producerState{epoch: s.epoch}
		for _, b := range s.batches {
			if b.lastOffset < off {
				kept.batches = append(kept.batches, b)
			}
		}
		if len(kept.batches) > 0 {
			out[id] = kept
		}
	}
	for i := range p.mu.sealed {
		if s := &p.mu.sealed[i]; s.End == off {
			if snapshot, err := decodeProducers(s.Producers); err == nil {
				maps.Copy(out, snapshot)
			}
		}
	}
	return out
}

// startOverLocked drops what is hot.
func (f *follower) startOverLocked() error {
	p, m, at := f.p, &f.p.mu, f.in.StartOver.At
	producers, err := decodeProducers(f.in.StartOver.Producers)
	if err != nil {
		return err
	}
	f.w.Truncate(p.log, 0, math.MaxInt64-1) // a damaged log may go on behind the end that recovery came to
	m.damaged, m.err = false, kerr.NotLeaderForPartition
	m.cuts++
	f.wrote = true
	m.tail, f.cut = batchQueue{}, true
	m.epochs = slices.Clone(f.in.StartOver.Epochs)
	p.cutEpochsLocked(at)
	m.producers, m.sealed, m.index = producers, nil, nil
	m.active, m.maxTs, m.bytes = openRange{base: at, maxTs: -1}, -1, 0
	m.hotStart, m.highWater, m.end, m.durable = at, at, at, at
	return nil
}

// tailLocked puts copies into the tail where consumers read from followers. Elsewhere the tail is the leaders', who archive from it.
func (f *follower) tailLocked() {
	if !f.p.g.opts.EagerHighWatermark {
		f.p.mu.tail = batchQueue{} // what is from its time as the leader has a gap behind it now
		return
	}
	for _, b := range f.in.Batches {
		f.p.tailLocked(bytes.Clone(b))
	}
}

// synced shows what is on stable storage now.
func (f *follower) synced() {
	p, m := f.p, &f.p.mu
	m.Lock()
	if m.cuts != f.cuts { // truncated again, by a later write
		m.Unlock()
		return
	}
	m.durable = max(m.durable, f.end)
	if m.leader == nil {
		m.logStart = max(m.logStart, min(f.in.LogStart, m.durable))
		p.committedLocked(min(f.in.HighWatermark, m.durable))
	}
	f.tailLocked()
	m.unsaved = true
	answers := p.durableLocked() // it may lead by now
	m.Unlock()
	if p.g.opts.EagerHighWatermark {
		for _, b := range f.in.Batches {
			p.g.tail.add(p, b)
		}
	}
	p.g.metrics.replicatedIn.Add(context.Background(), sizeOf(f.in.Batches))
	p.g.settle(answers)
}
