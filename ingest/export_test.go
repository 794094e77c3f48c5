package ingest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// ProducersOf shows a partition's producer state as text.
func ProducersOf(p *Partition) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.producers.text()
}

// ProducersAfter shows the producer state of a log that consists of the batches.
func ProducersAfter(batches []record.Batch) string {
	t := producerTable{}
	for _, b := range batches {
		t.note(b, 1000)
	}
	return t.text()
}

func (t producerTable) text() string {
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&out, "%d epoch %d %v\n", id, t[id].epoch, t[id].batches)
	}
	return out.String()
}

// EpochsOf are the leader epochs of a partition's log.
func EpochsOf(p *Partition) []base.EpochStart {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mu.epochs)
}

// OpenBytesOf is the size of the open range.
func OpenBytesOf(p *Partition) (from base.Offset, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.active.base, p.mu.active.bytes
}

// FollowsUnder is the epoch of the leader that a partition follows.
func FollowsUnder(p *Partition) base.LeaderEpoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.following
}

// Housekeep seals and trims as a tick does.
func Housekeep(g *Ingest) {
	now := g.clock.Now()
	g.sealDue(g.work.list(), now)
	g.trim(now)
}

// Damage takes a partition out of service.
func Damage(p *Partition) { p.damage(base.MarkCorruption(errSnapshot)) }
