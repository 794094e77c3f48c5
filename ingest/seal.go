package ingest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// mustRollLocked decides before an append whether the open range is closed first: segment.bytes (and the bound on one
// object) by size, segment.ms by record timestamps, as Kafka's UnifiedLog.maybeRoll does.
func (p *Partition) mustRollLocked(b record.Batch) bool {
	a, cfg := &p.mu.active, p.Config()
	if a.bytes == 0 {
		return false
	}
	limit := min(int64(cfg.SegmentBytes), p.g.opts.MaxSealBytes)
	return a.bytes+int64(len(b)) > limit || a.firstTs >= 0 && b.MaxTimestamp()-a.firstTs > cfg.SegmentMs
}

// sealLocked closes the open range. The 's' row goes into w, so that it is in the WAL before what is appended after it.
func (p *Partition) sealLocked(w *hot.Write, nowMs int64) {
	m := &p.mu
	if m.active.base == m.end {
		return
	}
	s := hot.Sealed{
		Base: m.active.base, End: m.end, Bytes: m.active.bytes, MaxTimestamp: m.active.maxTs, SealedAtMs: nowMs,
	}
	if len(m.producers) > 0 {
		s.Producers = m.producers.encode(nil)
	}
	m.sealed = append(m.sealed, s)
	m.active = openRange{base: m.end, maxTs: -1}
	m.unsaved = true
	w.SetSealed(p.log, &s)
	if tiered(p.Config()) {
		p.g.work.addReady(p)
	}
}

func tiered(cfg *metadata.TopicConfig) bool { return cfg.RemoteStorageEnable && !cfg.RemoteCopyDisable }

// dueLocked reports whether age asks for the open range to be closed.
func (p *Partition) dueLocked(nowMs int64) bool {
	a, cfg := &p.mu.active, p.Config()
	if a.bytes == 0 {
		return false
	}
	a.openedAtMs = min(a.openedAtMs, nowMs) // the clock was set back: the range does not wait until it is there again
	age := nowMs - a.openedAtMs
	if tiered(cfg) && (age >= cfg.TieringMaxLagMs || cfg.TieringMaxLagBytes > 0 && a.bytes >= cfg.TieringMaxLagBytes) {
		return true
	}
	return age >= cfg.SegmentMs
}

// workset is the partitions that have something to do: open bytes, an old checkpoint, ranges to trim or to tier.
type workset struct {
	c  chan struct{}
	mu struct {
		sync.Mutex
		parts   map[*Partition]struct{}
		ready   map[*Partition]struct{} // with sealed ranges that are not tiered
		news    bool                    // ready has grown since SealedC was signalled
		touched bool                    // parts was added to since housekeeping looked
	}
}

func newWorkset() *workset {
	w := &workset{c: make(chan struct{}, 1)}
	w.mu.parts = map[*Partition]struct{}{}
	w.mu.ready = map[*Partition]struct{}{}
	return w
}

func (w *workset) add(p *Partition) {
	w.mu.Lock()
	w.mu.parts[p] = struct{}{}
	w.mu.touched = true
	w.mu.Unlock()
	w.wake()
}

// wake makes housekeeping look.
func (w *workset) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

func (w *workset) addReady(p *Partition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.ready[p] = struct{}{}
	w.mu.news = true
}

// takeTouched reports whether a partition was added since the last call.
func (w *workset) takeTouched() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	touched := w.mu.touched
	w.mu.touched = false
	return touched
}

// takeNews reports whether ready has grown since the last call.
func (w *workset) takeNews() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := w.mu.news
	w.mu.news = false
	return news
}

func (w *workset) remove(p *Partition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mu.parts, p)
}

func (w *workset) removeReady(p *Partition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mu.ready, p)
}

func (w *workset) list() []*Partition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return keys(w.mu.parts)
}

func (w *workset) listReady() []*Partition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return keys(w.mu.ready)
}

func keys(m map[*Partition]struct{}) []*Partition {
	ps := make([]*Partition, 0, len(m))
	for p := range m {
		ps = append(ps, p)
	}
	return ps
}

// housekeep seals, trims and checkpoints while there is something to do, and sleeps while there is not.
func (g *Ingest) housekeep(ctx context.Context) {
	var lastCheckpoint time.Time
	lastRetention := g.clock.Now()
	for {
		if !g.sleep(ctx, g.work.c, g.pause()) || !g.sleep(ctx, nil, g.opts.TickEvery) {
			return
		}
		now := g.clock.Now()
		g.dropGone()
		work := g.work.list()
		g.sealDue(work, now)
		if g.work.takeNews() {
			g.signalSealed()
		}
		g.trim(now)
		g.reclaim()
		if now.Sub(lastCheckpoint) >= g.opts.CheckpointEvery {
			lastCheckpoint = now
			if err := g.checkpoint(work); err != nil {
				g.log.Error("checkpoint", slog.Any("err", err))
			}
		}
		if now.Sub(lastRetention) >= g.opts.RetentionEvery {
			lastRetention = now
			g.retain(now)
		}
		g.retire(work)
	}
}

// quietTicks is how many ticks housekeeping leaves out while nothing is appended or tiered: what it looks for then is age.
const quietTicks = 20

// pause is how long housekeeping may sleep, beyond a tick, until something wakes it.
func (g *Ingest) pause() time.Duration {
	switch touched := g.work.takeTouched(); {
	case touched || g.hasGone():
		return 0
	case len(g.work.list()) > 0:
		return quietTicks * g.opts.TickEvery
	default:
		return g.opts.RetentionEvery
	}
}

// sleep waits for d or for c (nil: only d); it reports whether to go on.
func (g *Ingest) sleep(ctx context.Context, c <-chan struct{}, d time.Duration) bool {
	t := g.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-c:
	case <-t.C:
	}
	return true
}

// sealDue closes ranges by age and, where too much is not tiered, the largest ones (the sizing law of facts/pebble.md).
func (g *Ingest) sealDue(work []*Partition, now time.Time) {
	nowMs := now.UnixMilli()
	type open struct {
		p     *Partition
		bytes int64
	}
	var opens []open
	var due []*Partition
	var untiered, openBytes int64
	for _, p := range work {
		p.mu.Lock()
		if p.dueLocked(nowMs) {
			due = append(due, p)
		}
		if tiered(p.Config()) {
			untiered += p.untieredLocked()
			if n := p.mu.active.bytes; n > 0 && (len(due) == 0 || due[len(due)-1] != p) {
				opens = append(opens, open{p, n})
				openBytes += n
			}
		}
		p.mu.Unlock()
	}
	if untiered > g.opts.UntieredBytes {
		slices.SortFunc(opens, func(a, b open) int { return cmp.Compare(b.bytes, a.bytes) })
		// What is sealed already waits for the bucket; sealing more would only make small objects.
		for over := openBytes - g.opts.UntieredBytes/2; over > 0 && len(opens) > 0; opens = opens[1:] {
			due = append(due, opens[0].p)
			over -= opens[0].bytes
		}
	}
	g.seal(due, nowMs)
}

// seal closes the open ranges of partitions.
func (g *Ingest) seal(due []*Partition, nowMs int64) {
	err := g.writeRows(due, func(w *hot.Write, p *Partition) bool {
		n := len(p.mu.sealed)
		p.sealLocked(w, nowMs)
		return len(p.mu.sealed) > n
	})
	if err != nil {
		g.log.Error("write sealed ranges", slog.Any("err", err))
	}
}

// writeRows calls row, which may add rows of p to w and reports whether it did, and writes them without waiting for the
// disk. The partitions' order is held from before row looks at the state until the rows are in the WAL: they follow what they
// describe, and no older row follows a newer one, which may have been acknowledged (DeleteRecords).
func (g *Ingest) writeRows(ps []*Partition, row func(w *hot.Write, p *Partition) bool) error {
	const perWrite = 500
	ps = slices.SortedFunc(slices.Values(ps), func(a, b *Partition) int { return cmp.Compare(a.log, b.log) })
	for chunk := range slices.Chunk(ps, perWrite) {
		if err := g.writeChunk(chunk, row); err != nil {
			return fmt.Errorf("write rows of %d logs: %w", len(chunk), err)
		}
	}
	return nil
}

func (g *Ingest) writeChunk(ps []*Partition, row func(w *hot.Write, p *Partition) bool) error {
	w := g.store.NewWrite()
	n := 0
	for _, p := range ps {
		p.order.Lock()
		defer p.order.Unlock()
		p.mu.Lock()
		if !p.mu.dropped && !p.mu.former && row(w, p) {
			n++
		}
		p.mu.Unlock()
	}
	if n == 0 {
		w.Discard()
		return nil
	}
	return g.store.ApplyNoSync(w)
}

func (g *Ingest) signalSealed() {
	select {
	case g.sealedC <- struct{}{}:
	default:
	}
}

// SealedRange is a closed range of a partition that this broker leads, all below the high watermark (I3).
type SealedRange struct {
	Log         base.LogID
	TP          base.TopicPartition
	TopicID     base.TopicID
	LogStart    base.Offset
	LeaderEpoch base.LeaderEpoch
	Epochs      []base.EpochStart // of the log up to the range's end
	cut         bool              // it is the rest of a sealed range
	hot.Sealed
}

// Sealed lists ranges that wait for the bucket, oldest first, each log's in offset order, up to about maxBytes.
func (g *Ingest) Sealed(maxBytes int64) []SealedRange {
	var out []SealedRange
	for _, p := range g.work.listReady() {
		n := len(out)
		out = p.appendSealed(out)
		if len(out) > n {
			g.measure(&out[n])
		}
		if len(out) == n {
			g.work.removeReady(p)
			p.readyAgain()
		}
	}
	slices.SortStableFunc(out, func(a, b SealedRange) int { return int(a.SealedAtMs - b.SealedAtMs) })
	var sum int64
	for i := range out {
		if sum += out[i].Bytes; sum > maxBytes && i > 0 {
			return out[:i]
		}
	}
	return out
}

// measure counts the bytes of a range that begins at the tiered end, which a leader before this one, or a row that was lost, has put
// inside a sealed range.
func (g *Ingest) measure(r *SealedRange) {
	if !r.cut {
		return
	}
	if n, err := g.store.Size(r.Log, r.Base, r.End); err == nil {
		r.Bytes = n
	}
}

func (p *Partition) appendSealed(out []SealedRange) []SealedRange {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	if m.err != nil || !tiered(p.Config()) {
		return out
	}
	latestMs := int64(0)
	for i := range m.sealed {
		s := m.sealed[i]
		if s.End <= m.tieredEnd {
			continue
		}
		if s.End > m.highWater {
			break
		}
		cut := s.Base < m.tieredEnd
		s.Base = max(s.Base, m.tieredEnd)
		latestMs = max(latestMs, s.SealedAtMs)
		s.SealedAtMs = latestMs // the clock may have been set back: a log's ranges keep their order when they are sorted
		out = append(out, SealedRange{
			Log: p.log, TP: m.tp, TopicID: m.topicID, LogStart: m.logStart, LeaderEpoch: m.epoch,
			Epochs: slices.Clone(replica.TruncateEpochs(m.epochs, s.End)), Sealed: s, cut: cut,
		})
	}
	return out
}

// readyAgain puts the partition back where a range is sealed but not below the high watermark yet.
func (p *Partition) readyAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.mu.sealed); n > 0 && p.mu.sealed[n-1].End > p.mu.tieredEnd && p.mu.err == nil && tiered(p.Config()) {
		p.g.work.addReady(p)
	}
}

// SealedC is signalled when there may be more to list.
func (g *Ingest) SealedC() <-chan struct{} { return g.sealedC }

// ReadSealed yields the batches of [from, end) of a log in order.
func (g *Ingest) ReadSealed(ctx context.Context, id base.LogID, from, end base.Offset, emit func(record.Batch) error) error {
	p := g.byLog(id)
	if p == nil {
		return errGone(id)
	}
	for from < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		bs, err := p.readVerified(from, end, 1<<20)
		if err != nil {
			return err
		}
		for _, b := range bs {
			if err := emit(b); err != nil {
				return err
			}
		}
		from = bs[len(bs)-1].NextOffset()
	}
	return nil
}

// Tiered notes that a committed manifest names everything below end (I5).
func (g *Ingest) Tiered(id base.LogID, end base.Offset) {
	g.OnRoot(metadata.Root{Log: id, TieredEnd: end})
}

// OnRoot takes over where a committed manifest root, whoever committed it, says that the log starts and what of it is tiered.
func (g *Ingest) OnRoot(now metadata.Root) {
	g.mu.Lock()
	root := g.mu.roots[now.Log]
	root.Start, root.TieredEnd = max(root.Start, now.Start), max(root.TieredEnd, now.TieredEnd)
	g.mu.roots[now.Log] = root
	p := g.mu.parts[now.Log]
	g.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	p.mu.rootStart, p.mu.tieredEnd = max(p.mu.rootStart, now.Start), max(p.mu.tieredEnd, now.TieredEnd)
	p.startAtRootLocked()
	p.mu.Unlock()
	g.work.add(p)
}
