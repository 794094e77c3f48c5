package tiering

import (
	"sync"
	"time"
)

// Garbage is an object that a commit let go of, or that was uploaded and not committed. It may still be named by another
// log's manifest or by a newer root: whoever deletes looks again (I6).
type Garbage struct {
	Object string
	Since  time.Time
}

// garbage is the bounded queue between the committers and compaction. What does not fit is found by the sweep.
type garbage struct {
	limit int
	mu    struct {
		sync.Mutex
		items []Garbage
		lost  int64
	}
}

func newGarbage(limit int) *garbage { return &garbage{limit: limit} }

func (g *garbage) add(now time.Time, objects ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range objects {
		if n := len(g.mu.items); n > 0 && g.mu.items[n-1].Object == o {
			continue // the manifests that a commit supersedes often lie in one object
		}
		if len(g.mu.items) >= g.limit {
			g.mu.lost++
			continue
		}
		g.mu.items = append(g.mu.items, Garbage{Object: o, Since: now})
	}
}

func (g *garbage) take() []Garbage {
	g.mu.Lock()
	defer g.mu.Unlock()
	items := g.mu.items
	g.mu.items = nil
	return items
}

func (g *garbage) len() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(len(g.mu.items))
}

// TakeGarbage hands the objects let go of since the last call to the caller, who looks after them from then on.
func (t *Tiering) TakeGarbage() []Garbage { return t.garbage.take() }
