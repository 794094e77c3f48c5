package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
)

// trimmable is the oldest hot range of a partition that only the common budget keeps.
type trimmable struct {
	p          *Partition
	end        base.Offset
	bytes      int64
	sealedAtMs int64
}

// trim drops what is tiered and past local.retention.* or the common budget, all partitions in one write: lone range
// deletions make every next iterator slower (facts/pebble.md section 2).
func (g *Ingest) trim(now time.Time) {
	var budgeted []trimmable
	var sum int64
	ends := map[*Partition]base.Offset{}
	for _, p := range g.work.list() {
		p.mu.Lock()
		if end := p.localRetentionLocked(now.UnixMilli()); end > p.mu.hotStart {
			ends[p] = end
		}
		for _, t := range p.budgetedLocked() {
			budgeted = append(budgeted, t)
			sum += t.bytes
		}
		p.mu.Unlock()
	}
	slices.SortStableFunc(budgeted, func(a, b trimmable) int { return int(a.sealedAtMs - b.sealedAtMs) })
	for _, t := range budgeted {
		if sum <= g.opts.HotBytes {
			break
		}
		ends[t.p] = max(ends[t.p], t.end)
		sum -= t.bytes
	}
	g.trimTo(ends)
}

// trimTo moves the hot starts first, so that readers go elsewhere, and then deletes.
func (g *Ingest) trimTo(ends map[*Partition]base.Offset) {
	if len(ends) == 0 {
		return
	}
	trims := make([]hot.Trim, 0, len(ends))
	for p, end := range ends {
		p.order.Lock()
		p.mu.Lock()
		from := p.mu.hotStart
		p.dropHotLocked(end)
		trims = append(trims, hot.Trim{Log: p.log, From: from, To: end, Meta: p.metaLocked()})
		p.mu.unsaved = false
		p.mu.Unlock()
		p.order.Unlock()
	}
	if err := g.store.TrimAll(trims); err != nil {
		g.log.Error("trim hot ranges", slog.Int("logs", len(trims)), slog.Any("err", err))
	}
}

// localRetentionLocked is up to where local.retention.*, or the log start offset, lets hot ranges go.
func (p *Partition) localRetentionLocked(nowMs int64) base.Offset {
	m, cfg := &p.mu, p.Config()
	end, bytes := m.hotStart, p.hotBytesLocked()
	for i := range m.sealed {
		s := &m.sealed[i]
		switch {
		case s.End > m.tieredEnd && tiered(cfg):
			return end
		case s.End <= m.logStart:
		case s.End > m.tieredEnd:
			return end
		case cfg.LocalRetentionBytes >= 0 && bytes-s.Bytes >= cfg.LocalRetentionBytes:
		case cfg.LocalRetentionMs >= 0 && s.MaxTimestamp < nowMs-cfg.LocalRetentionMs:
		default:
			return end
		}
		bytes -= s.Bytes
		end = s.End
	}
	return end
}

// budgetedLocked lists tiered hot ranges that no local.retention.* speaks for.
func (p *Partition) budgetedLocked() (out []trimmable) {
	cfg := p.Config()
	if cfg.LocalRetentionBytes >= 0 || cfg.LocalRetentionMs >= 0 {
		return nil
	}
	for i := range p.mu.sealed {
		s := &p.mu.sealed[i]
		if s.End > p.mu.tieredEnd {
			break
		}
		out = append(out, trimmable{p, s.End, s.Bytes, s.SealedAtMs})
	}
	return out
}

// dropHotLocked forgets the hot ranges below end, which is the end of a sealed range.
func (p *Partition) dropHotLocked(end base.Offset) {
	m := &p.mu
	m.hotStart = end
	for len(m.sealed) > 0 && m.sealed[0].End <= end {
		m.sealed = m.sealed[1:]
	}
	for len(m.index) > 0 && m.index[0].Offset < end {
		m.index = m.index[1:]
	}
}

// retire takes partitions off the work list that need nothing until something happens to them.
func (g *Ingest) retire(work []*Partition) {
	for _, p := range work {
		p.mu.Lock()
		cfg := p.Config()
		busy := p.mu.unsaved || tiered(cfg) && (p.mu.active.bytes > 0 || len(p.mu.sealed) > 0)
		if p.mu.err != nil || !busy {
			g.work.remove(p)
		}
		p.mu.Unlock()
	}
}

// checkpoint writes the 'm' rows of partitions that changed, without waiting for the disk.
func (g *Ingest) checkpoint(ps []*Partition) error {
	const perWrite = 500
	for chunk := range slices.Chunk(ps, perWrite) {
		w := g.store.NewWrite()
		n := 0
		for _, p := range chunk {
			p.order.Lock()
			p.mu.Lock()
			if p.mu.unsaved {
				w.SetMeta(p.log, p.metaLocked())
				p.mu.unsaved = false
				n++
			}
			p.mu.Unlock()
			p.order.Unlock()
		}
		if n == 0 {
			w.Discard()
			continue
		}
		if err := g.store.ApplyNoSync(w); err != nil {
			return fmt.Errorf("write %d checkpoints: %w", n, err)
		}
	}
	return nil
}

// retain applies retention.* to topics that are not tiered (package compaction does it for the others) and forgets idle
// producers.
func (g *Ingest) retain(now time.Time) {
	expireBefore := now.Add(-g.opts.ProducerExpiry()).UnixMilli()
	w := g.store.NewWrite()
	sealed := false
	for _, p := range g.all() {
		p.mu.Lock()
		if p.mu.producers.expire(expireBefore) > 0 {
			p.mu.unsaved = true
		}
		if cfg := p.Config(); cfg != nil && !tiered(cfg) && cfg.Delete && p.mu.err == nil {
			a := &p.mu.active
			if a.bytes > 0 && (p.dueLocked(now.UnixMilli()) || cfg.RetentionMs >= 0 && a.maxTs < now.UnixMilli()-cfg.RetentionMs) {
				p.sealLocked(w, now.UnixMilli())
				sealed = true
			}
			if to := p.retentionLocked(now.UnixMilli()); to > p.mu.logStart {
				p.mu.logStart = to
				p.mu.unsaved = true
			}
		}
		p.mu.Unlock()
		g.work.add(p)
	}
	if !sealed {
		w.Discard()
	} else if err := g.store.ApplyNoSync(w); err != nil {
		g.log.Error("write sealed ranges", slog.Any("err", err))
	}
}

// retentionLocked is the log start offset that retention.ms and retention.bytes ask for; only whole sealed ranges go.
func (p *Partition) retentionLocked(nowMs int64) base.Offset {
	m, cfg := &p.mu, p.Config()
	start, bytes := m.logStart, p.hotBytesLocked()
	for i := range m.sealed {
		s := &m.sealed[i]
		old := cfg.RetentionMs >= 0 && s.MaxTimestamp < nowMs-cfg.RetentionMs
		large := cfg.RetentionBytes >= 0 && bytes-s.Bytes >= cfg.RetentionBytes
		if s.End > m.highWater || s.End > start && !old && !large {
			break
		}
		bytes -= s.Bytes
		start = max(start, s.End)
	}
	return start
}

// DeleteRecords moves the log start offset up to `to` (-1: to the high watermark), durably, and returns it: the low
// watermark. kerr.OffsetOutOfRange above the high watermark, kerr.PolicyViolation where the topic is only compacted.
func (g *Ingest) DeleteRecords(_ context.Context, tp base.TopicPartition, to base.Offset) (base.Offset, error) {
	p, err := g.Partition(tp)
	if err != nil {
		return base.NoOffset, err
	}
	if cfg := p.Config(); !cfg.Delete {
		return base.NoOffset, fmt.Errorf("delete records of %s: cleanup.policy is compact: %w", tp, kerr.PolicyViolation)
	}
	return p.advanceLogStart(to)
}

// AdvanceLogStart is DeleteRecords for retention: it moves the log start offset of a tiered log up, durably.
func (g *Ingest) AdvanceLogStart(_ context.Context, id base.LogID, to base.Offset) error {
	p := g.byLog(id)
	if p == nil {
		return errGone(id)
	}
	_, err := p.advanceLogStart(to)
	return err
}

func (p *Partition) advanceLogStart(to base.Offset) (base.Offset, error) {
	commit, start, err := p.moveLogStart(to)
	if commit == nil || err != nil {
		return start, err
	}
	p.g.work.add(p)
	if err := commit.Wait(); err != nil {
		return base.NoOffset, fmt.Errorf("delete records: %w: %w", kerr.KafkaStorageError, err)
	}
	return start, nil
}

// moveLogStart moves the offset and applies the row that says so; commit is nil where it is there already.
func (p *Partition) moveLogStart(to base.Offset) (commit *hot.Commit, start base.Offset, err error) {
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
		return nil, m.logStart, err
	}
	m.logStart = to
	meta := p.metaLocked()
	p.wakeLocked()
	p.mu.Unlock()
	w := p.g.store.NewWrite()
	w.SetMeta(p.log, meta)
	if commit, err = p.g.store.Apply(w); err != nil {
		return nil, base.NoOffset, fmt.Errorf("delete records: %w: %w", kerr.KafkaStorageError, err)
	}
	return commit, to, nil
}
