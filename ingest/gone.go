package ingest

import (
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// unseen stops and lists what requests have opened by an image of which onImage sees only a later one, where the topic is gone.
func (g *Ingest) unseen(image *metadata.Image) (gone []base.LogID) {
	g.mu.Lock()
	var stop []*Partition
	for id, revision := range g.mu.opened {
		if image.Revision() < revision {
			continue
		}
		delete(g.mu.opened, id)
		if _, _, ok := image.Log(id); !ok && g.mu.parts[id] != nil {
			stop, gone = append(stop, g.mu.parts[id]), append(gone, id)
		}
	}
	g.mu.Unlock()
	for _, p := range stop {
		p.stop(kerr.UnknownTopicOrPartition)
	}
	return gone
}

// openedAfter reports whether a request has opened a log by an image that onImage comes to after this one.
func (g *Ingest) openedAfter(id base.LogID, image *metadata.Image) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.mu.opened[id] > image.Revision()
}

// forget takes deleted partitions off the map. Their rows go later: the image must not wait for the disk.
func (g *Ingest) forget(logs []base.LogID) {
	if len(logs) == 0 {
		return
	}
	g.mu.Lock()
	for _, id := range logs {
		if p := g.mu.parts[id]; p != nil {
			g.tail.dropPartition(p)
			g.work.remove(p)
			g.work.removeReady(p)
			delete(g.mu.parts, id)
			g.mu.gone = append(g.mu.gone, p)
			g.mu.going[id]++
		}
	}
	g.mu.Unlock()
	g.work.wake()
}

// dropGone removes the rows of partitions that have left, behind the last append that was under way to them. One that has come back
// meanwhile writes from then on.
func (g *Ingest) dropGone() {
	g.mu.Lock()
	gone := g.mu.gone
	g.mu.gone = nil
	g.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	logs := make([]base.LogID, len(gone))
	for i, p := range gone {
		p.order.Lock()
		p.mu.Lock()
		p.mu.dropped = true
		p.mu.Unlock()
		p.order.Unlock()
		logs[i] = p.log
	}
	if err := g.store.Drop(logs); err != nil {
		g.log.Error("drop deleted logs", slog.Int("logs", len(logs)), slog.Any("err", err))
		return // final for the process; who has come back writes nothing over those rows
	}
	g.reclaimable.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range logs {
		if g.mu.going[id]--; g.mu.going[id] > 0 {
			continue
		}
		delete(g.mu.going, id)
		if p := g.mu.parts[id]; p != nil {
			p.mu.Lock()
			p.mu.former = false
			p.mu.Unlock()
		}
	}
}

func (g *Ingest) hasGone() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.mu.gone) > 0
}
