package ingest

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// metaLocked is the partition's 'm' row.
func (p *Partition) metaLocked() *hot.Meta {
	m := &p.mu
	return &hot.Meta{
		LogStart: m.logStart, HotStart: m.hotStart, HighWater: m.highWater, End: m.end,
		Epochs: slices.Clone(m.epochs), Producers: p.encodeStateLocked(),
	}
}

// putMetaLocked adds the 'm' row to w.
func (p *Partition) putMetaLocked(w *hot.Write) {
	m := &p.mu
	if m.stale {
		w.Trim(hot.Trim{Log: p.log, From: 0, To: m.hotStart, Meta: p.metaLocked()})
	} else {
		w.SetMeta(p.log, p.metaLocked())
	}
	m.stored, m.stale = true, false
}

// skipToTieredLocked makes a log that ends below what is tiered go on from there: the disk lost its tail, and what it holds is
// not needed. The rows go before anything is appended: the next recovery would take their end for the log's.
func (p *Partition) skipToTieredLocked() {
	m := &p.mu
	p.g.log.Warn("hot log ends below the tiered end: going on from the bucket", slog.String("log", p.log.String()),
		slog.Int64("end", int64(m.end)), slog.Int64("tiered_end", int64(m.tieredEnd)))
	m.end = m.tieredEnd
	m.hotStart, m.durable, m.highWater = m.end, m.end, m.end
	m.sealed, m.index = nil, nil
	m.active = openRange{base: m.end, maxTs: -1}
	m.tail = batchQueue{}
	m.stale, m.unsaved = true, true
	m.cuts++
}

// encodeStateLocked is the opaque part of the 'm' row: the counters of the open range, then the producer snapshot.
func (p *Partition) encodeStateLocked() []byte {
	m := &p.mu
	b := make([]byte, 0, 64)
	for _, v := range [...]int64{
		m.bytes, m.maxTs, int64(m.active.base), m.active.bytes, m.active.maxTs, m.active.firstTs, m.active.openedAtMs,
	} {
		b = binary.AppendVarint(b, v)
	}
	return m.producers.encode(b)
}

func (p *Partition) decodeStateLocked(src []byte) error {
	m := &p.mu
	if len(src) == 0 {
		return nil
	}
	d := varints{src: src}
	m.bytes, m.maxTs = d.varint(), d.varint()
	m.active = openRange{base: base.Offset(d.varint()), bytes: d.varint(), maxTs: d.varint(), firstTs: d.varint(), openedAtMs: d.varint()}
	if d.bad {
		return base.MarkCorruption(errSnapshot)
	}
	var err error
	m.producers, err = decodeProducers(d.src)
	return err
}

// recover rebuilds every partition that the hot store knows. Logs whose topic is gone are dropped by the first image.
func (g *Ingest) recover() error {
	logs, err := g.store.Logs()
	if err != nil {
		return fmt.Errorf("load hot logs: %w", err)
	}
	for i := range logs {
		l := &logs[i]
		p := newPartition(g, l.ID, g.mu.roots[l.ID])
		p.mu.Lock()
		err := p.recoverLocked(l)
		p.mu.Unlock()
		switch {
		case base.IsCorruption(err):
			p.damage(err)
		case err != nil:
			return fmt.Errorf("recover log %s: %w", l.ID, err)
		}
		g.mu.parts[l.ID] = p
	}
	if len(logs) > 0 {
		g.log.Info("recovered hot logs", slog.Int("logs", len(logs)))
	}
	return nil
}

// recoverLocked takes over the rows of l and replays the batches behind its checkpoint.
func (p *Partition) recoverLocked(l *hot.Log) error {
	m := &p.mu
	root := metadata.Root{Start: m.logStart, TieredEnd: m.tieredEnd}
	m.logStart = max(l.Meta.LogStart, root.Start)
	m.hotStart = l.Meta.HotStart
	m.epochs = slices.Clone(l.Meta.Epochs)
	m.end = l.Meta.End
	m.active = openRange{base: m.hotStart, maxTs: -1}
	if err := p.decodeStateLocked(l.Meta.Producers); err != nil {
		return err
	}
	if n := len(m.epochs); n > 0 {
		m.epoch = m.epochs[n-1].Epoch
	}
	m.index = l.Index
	if l.End < m.end {
		return base.MarkCorruption(fmt.Errorf("the log ends at %d, its checkpoint at %d", l.End, m.end))
	}
	m.highWater = l.Meta.HighWater
	if err := p.replayLocked(l); err != nil {
		return err
	}
	m.durable = m.end // Pebble flushed the replayed WAL
	m.highWater = min(m.highWater, m.end)
	m.stored = true
	return nil
}

// replayLocked reads the batches from the checkpoint's end to the log end and closes ranges where the 's' rows say so.
func (p *Partition) replayLocked(l *hot.Log) error {
	m := &p.mu
	sealed := l.Sealed
	for len(sealed) > 0 && sealed[0].End <= m.active.base {
		m.sealed = append(m.sealed, sealed[0])
		sealed = sealed[1:]
	}
	nowMs := p.g.clock.Now().UnixMilli()
	closeRange := func() {
		for len(sealed) > 0 && m.end >= sealed[0].End {
			m.active = openRange{base: sealed[0].End, maxTs: -1}
			m.sealed = append(m.sealed, sealed[0])
			sealed = sealed[1:]
		}
	}
	err := p.eachStored(m.end, l.End, func(b record.Batch) {
		closeRange()
		p.noteEpochLocked(b.LeaderEpoch(), b.BaseOffset())
		p.noteLocked(nil, b, nowMs)
	})
	if err != nil {
		return err
	}
	closeRange()
	return p.fillSealedLocked(nowMs)
}

// eachStored yields the batches of [from, end) of the hot store, verified and without a gap (I2), whether they are visible or not.
func (p *Partition) eachStored(from, end base.Offset, fn func(record.Batch)) error {
	for from < end {
		bs, err := p.g.store.ReadVerified(p.log, from, end, 1<<20)
		if err != nil {
			return fmt.Errorf("read log %s at %d: %w", p.log, from, err)
		}
		if len(bs) == 0 {
			return p.hole(from, end)
		}
		for _, b := range bs {
			if b.BaseOffset() != from {
				return p.hole(from, end)
			}
			fn(b)
			from = b.NextOffset()
		}
	}
	return nil
}

func (p *Partition) hole(at, end base.Offset) error {
	return base.MarkCorruption(fmt.Errorf("log %s has no batch at offset %d below %d", p.log, at, end))
}

// noteEpochLocked notes the epoch of a batch that begins at start. One that this broker began to lead there, without a record, goes:
// the batch may be of an older one (replica.AssignEpoch).
func (p *Partition) noteEpochLocked(e base.LeaderEpoch, start base.Offset) {
	m := &p.mu
	if e == m.epoch {
		return
	}
	m.epochs = replica.AssignEpoch(m.epochs, e, start)
	m.epoch = m.epochs[len(m.epochs)-1].Epoch
}

// fillSealedLocked makes the sealed ranges contiguous from the hot start: an 's' row that age or pressure wrote without a
// sync may be lost while the manifest that names the range is not. Sizes are counted: a range of no bytes would never be
// closed.
func (p *Partition) fillSealedLocked(nowMs int64) error {
	m := &p.mu
	var out []hot.Sealed
	pos := m.hotStart
	for _, s := range m.sealed {
		if s.Base > pos {
			n, err := p.g.store.Size(p.log, pos, s.Base)
			if err != nil {
				return err
			}
			out = append(out, hot.Sealed{Base: pos, End: s.Base, Bytes: n, MaxTimestamp: s.MaxTimestamp, SealedAtMs: nowMs})
		}
		out = append(out, s)
		pos = s.End
	}
	m.sealed = out
	if m.active.base > pos { // it cannot start past the last sealed range: take it back
		n, err := p.g.store.Size(p.log, pos, m.end)
		if err != nil {
			return err
		}
		m.active.base, m.active.bytes, m.active.maxTs = pos, n, max(m.active.maxTs, m.maxTs)
	}
	if m.tieredEnd <= m.active.base || p.safeLocked() < m.tieredEnd || m.tieredEnd > m.end {
		return nil
	}
	n, err := p.g.store.Size(p.log, m.active.base, m.tieredEnd)
	if err != nil {
		return err
	}
	m.sealed = append(m.sealed, hot.Sealed{Base: m.active.base, End: m.tieredEnd, Bytes: n, MaxTimestamp: m.active.maxTs, SealedAtMs: nowMs})
	m.active.base, m.active.bytes = m.tieredEnd, m.active.bytes-n
	if m.active.base == m.end {
		m.active = openRange{base: m.end, maxTs: -1}
	}
	return nil
}
