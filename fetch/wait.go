package fetch

import (
	"context"
	"time"

	"github.com/varvelog/varve/ingest"
)

// wait is a Fetch that waits for more bytes. Its partitions are watched from before the first read, so that nothing that
// comes in between is missed.
type wait struct {
	s      *Service
	waiter *ingest.Waiter
	parts  []*ingest.Partition
}

func (s *Service) newWait(r *Request) *wait {
	w := &wait{s: s}
	if r.MaxWaitMs <= 0 || r.MinBytes <= 0 {
		return w
	}
	w.waiter = ingest.NewWaiter()
	w.parts = make([]*ingest.Partition, 0, len(r.Partitions))
	for i := range r.Partitions {
		if p, err := s.opts.Ingest.Served(r.Partitions[i].TP, r.Partitions[i].TopicID, r.Follower); err == nil {
			p.Watch(w.waiter)
			w.parts = append(w.parts, p)
		}
	}
	return w
}

// sleep waits until a partition has news or the deadline passes; it reports whether to read again.
func (w *wait) sleep(ctx context.Context, deadline time.Time) bool {
	if w.waiter == nil {
		return false
	}
	left := deadline.Sub(w.s.opts.Clock.Now())
	if left <= 0 {
		return false
	}
	t := w.s.opts.Clock.NewTimer(left)
	defer t.Stop()
	select {
	case <-w.waiter.C:
		return true
	case <-t.C:
		return false
	case <-ctx.Done():
		return false
	}
}

func (w *wait) close() {
	for _, p := range w.parts {
		p.Unwatch(w.waiter)
	}
}
