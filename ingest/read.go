package ingest

import (
	"fmt"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// hotReader is the read side of the hot store.
type hotReader interface {
	Read(log base.LogID, from, upTo base.Offset, maxBytes int) ([]record.Batch, error)
	// ReadVerified checks every batch's CRC as well: what goes into the bucket is what was acknowledged.
	ReadVerified(log base.LogID, from, upTo base.Offset, maxBytes int) ([]record.Batch, error)
	// Size counts the bytes of [from, upTo) without reading them.
	Size(log base.LogID, from, upTo base.Offset) (int64, error)
}

// Tier says where bytes came from.
type Tier string

// The tiers of the fetched-bytes metric.
const (
	TierTail Tier = "tail"
	TierHot  Tier = "hot"
	TierCold Tier = "cold"
)

// View is what a reader plans with: one consistent look at a partition.
type View struct {
	LogStart, HotStart, TieredEnd base.Offset
	HighWatermark, LastStable     base.Offset
	LogEnd                        base.Offset
	Epoch                         base.LeaderEpoch
	// Readable: the high watermark is no smaller than what earlier leaders may have acknowledged (KIP-207).
	Readable bool
	// Served is the first offset that ReadHot serves: the hot start, or the start of the tail where that is older.
	Served base.Offset
}

// View looks at the partition; err is what a request is answered where this broker does not lead it.
func (p *Partition) View() (View, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.viewLocked(), p.errLocked()
}

func (p *Partition) viewLocked() View {
	m := &p.mu
	v := View{
		LogStart: m.logStart, HotStart: m.hotStart, TieredEnd: m.tieredEnd,
		HighWatermark: m.highWater, LastStable: m.highWater, LogEnd: m.end, Epoch: m.epoch, Served: m.hotStart,
		Readable: p.readableLocked(),
	}
	if start, ok := m.tail.start(); ok {
		v.Served = min(v.Served, start)
	}
	return v
}

// ReadHot returns whole batches of the tail or of Pebble, from the one that contains from, none that reaches upTo or
// beyond, about maxBytes but at least one. upTo is at most the high watermark. base.Offset from below View.Served, or
// trimmed meanwhile, gives kerr.OffsetOutOfRange: the caller plans again. The bytes must not be modified.
func (p *Partition) ReadHot(from, upTo base.Offset, maxBytes int) ([]record.Batch, error) {
	bs, _, err := p.readHot(p.g.store.Read, from, upTo, maxBytes)
	return bs, err
}

// ReadHotTier is ReadHot that also says where the bytes came from.
func (p *Partition) ReadHotTier(from, upTo base.Offset, maxBytes int) ([]record.Batch, Tier, error) {
	return p.readHot(p.g.store.Read, from, upTo, maxBytes)
}

func (p *Partition) readVerified(from, upTo base.Offset, maxBytes int) ([]record.Batch, error) {
	bs, _, err := p.readHot(p.g.store.ReadVerified, from, upTo, maxBytes)
	return bs, err
}

type storeRead func(log base.LogID, from, upTo base.Offset, maxBytes int) ([]record.Batch, error)

func (p *Partition) readHot(read storeRead, from, upTo base.Offset, maxBytes int) ([]record.Batch, Tier, error) {
	p.mu.Lock()
	highWater := p.mu.highWater
	p.mu.Unlock()
	return p.readUpTo(read, from, min(upTo, highWater), maxBytes)
}

func (p *Partition) readUpTo(read storeRead, from, upTo base.Offset, maxBytes int) ([]record.Batch, Tier, error) {
	p.mu.Lock()
	if p.mu.tail.holds(from) {
		bs := p.mu.tail.read(from, upTo, maxBytes)
		p.mu.Unlock()
		if len(bs) == 0 {
			return nil, TierTail, p.gone(from)
		}
		return bs, TierTail, nil
	}
	hotStart := p.mu.hotStart
	p.mu.Unlock()
	if from < hotStart {
		return nil, TierHot, p.gone(from)
	}
	bs, err := read(p.log, from, upTo, maxBytes)
	if err != nil {
		if base.IsCorruption(err) {
			p.damage(err) // out of service rather than wrong
		}
		return nil, TierHot, fmt.Errorf("read %s at %d: %w", p.log, from, err)
	}
	if len(bs) == 0 || bs[0].BaseOffset() > from {
		return nil, TierHot, p.gone(from)
	}
	return bs, TierHot, nil
}

func (p *Partition) gone(from base.Offset) error {
	return fmt.Errorf("log %s at %d is not hot: %w", p.log, from, kerr.OffsetOutOfRange)
}

func errGone(id base.LogID) error {
	return fmt.Errorf("log %s: %w", id, kerr.UnknownTopicOrPartition)
}

// Found is a record that a look-up by time found.
type Found struct {
	Offset    base.Offset
	Timestamp int64 // ms
}

// FindTime finds the first record at or after from, below upTo, whose timestamp is at least ts (ms). kerr.OffsetOutOfRange
// where not everything from there on is hot (any more): the caller plans again.
func (p *Partition) FindTime(ts int64, from, upTo base.Offset) (Found, bool, error) {
	start, err := p.seekTime(ts, from)
	if err != nil {
		return Found{}, false, err
	}
	var found Found
	ok := false
	err = p.eachHot(start, upTo, func(b record.Batch) (bool, error) {
		if b.MaxTimestamp() < ts || b.NextOffset() <= from {
			return true, nil
		}
		off, at, hit, err := b.FindTime(ts)
		if hit && off < from {
			off, at, hit, err = findAfter(b, ts, from)
		}
		found, ok = Found{off, at}, hit
		return !ok, err
	})
	return found, ok, err
}

// findAfter is FindTime for the batch that from lies within.
func findAfter(b record.Batch, ts int64, from base.Offset) (off base.Offset, at int64, ok bool, err error) {
	err = b.Each(func(r record.Record) bool {
		if r.Timestamp < ts || r.Offset < from {
			return true
		}
		off, at, ok = r.Offset, r.Timestamp, true
		return false
	})
	return off, at, ok, err
}

// seekTime is a hot offset before which, down to from, no record has a timestamp of ts or more.
func (p *Partition) seekTime(ts int64, from base.Offset) (base.Offset, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if from < p.mu.hotStart {
		return base.NoOffset, p.gone(from)
	}
	ix := p.mu.index
	// ix[i].MaxTimestamp covers what lies before entry i, so the answer lies before the first entry that reaches ts.
	i := sort.Search(len(ix), func(i int) bool { return ix[i].MaxTimestamp >= ts })
	if i > 0 {
		from = max(from, ix[i-1].Offset)
	}
	return from, nil
}

// MaxTimestamp finds the record at or after from, below upTo, with the largest timestamp, the earliest such. Errors as
// FindTime's.
func (p *Partition) MaxTimestamp(from, upTo base.Offset) (Found, bool, error) {
	var best record.Batch
	if from < p.hotStart() {
		return Found{}, false, p.gone(from)
	}
	err := p.eachHot(from, upTo, func(b record.Batch) (bool, error) {
		if best == nil || b.MaxTimestamp() > best.MaxTimestamp() {
			best = b
		}
		return true, nil
	})
	if err != nil || best == nil {
		return Found{}, false, err
	}
	off, ts, err := best.MaxTimestampRecord()
	return Found{off, ts}, true, err
}

func (p *Partition) hotStart() base.Offset {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.hotStart
}

// eachHot yields hot batches in order until fn answers false.
func (p *Partition) eachHot(from, upTo base.Offset, fn func(record.Batch) (bool, error)) error {
	for from < upTo {
		bs, err := p.ReadHot(from, upTo, 1<<20)
		if err != nil {
			return err
		}
		for _, b := range bs {
			if more, err := fn(b); err != nil || !more {
				return err
			}
		}
		from = bs[len(bs)-1].NextOffset()
	}
	return nil
}
