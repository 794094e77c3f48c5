package ingest

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
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
	slices.SortStableFunc(budgeted, func(a, b trimmable) int { return cmp.Compare(a.sealedAtMs, b.sealedAtMs) })
	budget := g.opts.HotBytes
	if g.store.Full() {
		budget = 0 // the bucket has it
	}
	for _, t := range budgeted {
		if sum <= budget {
			break
		}
		ends[t.p] = max(ends[t.p], t.end)
		sum -= t.bytes
	}
	g.trimTo(ends)
}

// trimTo moves the hot starts first, so that readers go elsewhere, and then deletes. A log that has started over, or skipped to the
// tiered end, since its end was found has nothing there any more, and its hot start must not go back.
func (g *Ingest) trimTo(ends map[*Partition]base.Offset) {
	if len(ends) == 0 {
		return
	}
	err := g.writeRows(slices.Collect(maps.Keys(ends)), func(w *hot.Write, p *Partition) bool {
		from, end := p.mu.hotStart, ends[p]
		if !slices.ContainsFunc(p.mu.sealed, func(s hot.Sealed) bool { return s.End == end }) {
			return false
		}
		p.dropHotLocked(end)
		w.Trim(hot.Trim{Log: p.log, From: from, To: end, Meta: p.metaLocked()})
		p.mu.unsaved = false
		return true
	})
	if err != nil {
		g.log.Error("trim hot ranges", slog.Int("logs", len(ends)), slog.Any("err", err))
	}
	g.reclaimable.Store(true)
}

// reclaim makes Pebble give back the space of what was deleted, where the disk is full: while produce is refused nothing
// else would make it flush and compact.
func (g *Ingest) reclaim() {
	if !g.store.Full() || !g.reclaimable.CompareAndSwap(true, false) {
		return
	}
	g.group.Go(func(context.Context) {
		if err := g.store.Reclaim(); err != nil {
			g.reclaimable.Store(true)
			g.log.Error("reclaim disk space", slog.Any("err", err))
		}
	})
}

// safeLocked is the end of what is tiered and the same here as there: a follower may hold records behind its high watermark that
// its leader will make it truncate, though the leader has tiered others at these offsets. Truncation must still find them.
func (p *Partition) safeLocked() base.Offset { return min(p.mu.tieredEnd, p.mu.highWater) }

// hotOnly reports whether the bucket does not count for a topic: what was tiered of it goes, and what is hot stays for retention.*,
// though the manifest still names part of it (KIP-950). Where tiering ended without that, the bucket serves what it has.
func hotOnly(cfg *metadata.TopicConfig) bool {
	return !cfg.RemoteStorageEnable && cfg.RemoteDeleteOnDisable
}

// localRetentionLocked is up to where local.retention.*, or the log start offset, lets hot ranges go.
func (p *Partition) localRetentionLocked(nowMs int64) base.Offset {
	m, cfg := &p.mu, p.Config()
	end, bytes, safe := m.hotStart, p.hotBytesLocked(), p.safeLocked()
	for i := range m.sealed {
		s := &m.sealed[i]
		switch {
		case s.End > safe && tiered(cfg):
			return end
		case s.End <= m.logStart:
		case s.End > safe || hotOnly(cfg):
			return end
		case cfg.LocalRetentionBytes >= 0 && bytes-s.Bytes >= cfg.LocalRetentionBytes:
		case cfg.LocalRetentionMs >= 0 && agesFrom(s) < nowMs-cfg.LocalRetentionMs:
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
	if hotOnly(cfg) || cfg.LocalRetentionBytes >= 0 || cfg.LocalRetentionMs >= 0 {
		return nil
	}
	safe := p.safeLocked()
	for i := range p.mu.sealed {
		s := &p.mu.sealed[i]
		if s.End > safe {
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
		busy := p.mu.unsaved || cfg != nil && tiered(cfg) && (p.mu.active.bytes > 0 || len(p.mu.sealed) > 0)
		if p.mu.damaged || p.mu.dropped || !busy {
			g.work.remove(p)
		}
		p.mu.Unlock()
	}
}

// checkpoint writes the 'm' rows of partitions that changed, without waiting for the disk.
func (g *Ingest) checkpoint(ps []*Partition) error {
	changed := make([]*Partition, 0, len(ps))
	for _, p := range ps {
		p.mu.Lock()
		if p.mu.unsaved {
			changed = append(changed, p)
		}
		p.mu.Unlock()
	}
	return g.writeRows(changed, func(w *hot.Write, p *Partition) bool {
		p.putMetaLocked(w)
		p.mu.unsaved = false
		return true
	})
}

// retain applies retention.* to topics that are not tiered (package compaction does it for the others) and forgets idle
// producers.
func (g *Ingest) retain(now time.Time) {
	nowMs := now.UnixMilli()
	expireBefore := now.Add(-g.opts.ProducerExpiry()).UnixMilli()
	ps := slices.DeleteFunc(g.all(), func(p *Partition) bool { return p.Config() == nil }) // not led since the start
	var due []*Partition
	for _, p := range ps {
		p.mu.Lock()
		if p.mu.producers.expire(expireBefore) > 0 {
			p.mu.unsaved = true
		}
		cfg, a := p.Config(), &p.mu.active
		if p.retainsLocked() && a.bytes > 0 && (p.dueLocked(nowMs) || cfg.RetentionMs >= 0 && a.agesFrom() < nowMs-cfg.RetentionMs) {
			due = append(due, p)
		}
		p.mu.Unlock()
	}
	g.seal(due, nowMs)
	for _, p := range ps {
		p.mu.Lock()
		if p.retainsLocked() {
			if to := p.retentionLocked(nowMs); to > p.mu.logStart {
				p.mu.logStart = to
				p.mu.unsaved = true
			}
		}
		p.mu.Unlock()
		g.work.add(p)
	}
}

// retainsLocked reports whether retention.* is this package's business.
func (p *Partition) retainsLocked() bool {
	cfg := p.Config()
	return !tiered(cfg) && cfg.Delete && p.mu.err == nil
}

// agesFrom is the time from which a range's age counts, in ms: its largest record timestamp, or, where no record has one, when
// it was closed (Kafka: LogSegment.largestTimestamp falls back to the file's).
func agesFrom(s *hot.Sealed) int64 {
	if s.MaxTimestamp >= 0 {
		return s.MaxTimestamp
	}
	return s.SealedAtMs
}

func (a *openRange) agesFrom() int64 {
	if a.maxTs >= 0 {
		return a.maxTs
	}
	return a.openedAtMs
}

// retentionLocked is the log start offset that retention.ms and retention.bytes ask for; only whole sealed ranges go.
func (p *Partition) retentionLocked(nowMs int64) base.Offset {
	m, cfg := &p.mu, p.Config()
	start, bytes := m.logStart, p.hotBytesLocked()
	switch {
	case start >= m.hotStart:
	case hotOnly(cfg):
		start = min(m.hotStart, m.highWater)
	default:
		return start // tiered before copying was disabled: package compaction takes that part first
	}
	for i := range m.sealed {
		s := &m.sealed[i]
		old := cfg.RetentionMs >= 0 && agesFrom(s) < nowMs-cfg.RetentionMs
		large := cfg.RetentionBytes >= 0 && bytes-s.Bytes >= cfg.RetentionBytes
		if s.End > m.highWater || s.End > start && !old && !large {
			break
		}
		bytes -= s.Bytes
		start = max(start, s.End)
	}
	return start
}
