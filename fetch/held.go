package fetch

import (
	"context"
	"time"

	"github.com/varvelog/varve/internal/base"
)

// allowance is what the leader's replication quota lets a follower read of a partition.
type allowance struct {
	maxBytes int
	held     bool // nothing now
	counts   bool // what is read must be told to CountThrottled, with asked
	asked    bool // it might have been held
}

// allow asks the quota, and holds the partition where that is exhausted.
func (s *Service) allow(ses *followerSession, follower base.BrokerID, part *followerPart, maxBytes int) (a allowance) {
	a.maxBytes = maxBytes
	quota := s.opts.Ingest.LeaderQuota()
	if !quota.Limited() {
		return a
	}
	if a.counts, a.asked = part.part.Throttled(follower); !a.asked {
		return a
	}
	room, _, changed := quota.Room(s.opts.Clock.Now())
	if a.held = room == 0; a.held {
		ses.hold(part, changed)
	}
	a.maxBytes = int(min(int64(maxBytes), room))
	return a
}

// hold leaves a partition out until release. changed is closed when the quota itself changes.
func (ses *followerSession) hold(part *followerPart, changed <-chan struct{}) {
	if part.held {
		return
	}
	if len(ses.held) == 0 {
		ses.changed = changed
	}
	part.held = true
	ses.held = append(ses.held, part)
}

// release puts what the quota held back before all that is ready, where there may be room.
func (s *Service) release(ses *followerSession) {
	if len(ses.held) == 0 {
		return
	}
	if bytes, _, _ := s.opts.Ingest.LeaderQuota().Room(s.opts.Clock.Now()); bytes == 0 {
		select {
		case <-ses.changed:
		default:
			return
		}
	}
	ready := make([]*followerPart, 0, len(ses.held)+len(ses.ready))
	for _, part := range ses.held {
		part.held = false
		if !part.queued && ses.parts[part.key] == part {
			part.queued = true
			ready = append(ready, part)
		}
	}
	ses.ready, ses.held = append(ready, ses.ready...), nil
}

// awaitNews waits until a partition has news, until one that is held back may go on, or until the deadline passes; it reports
// whether there may be something to answer.
func (s *Service) awaitNews(ctx context.Context, ses *followerSession, deadline time.Time) bool {
	now := s.opts.Clock.Now()
	left, again := deadline.Sub(now), false
	if left <= 0 {
		return false
	}
	var changed <-chan struct{}
	if len(ses.held) > 0 {
		changed = ses.changed
		if _, wait, _ := s.opts.Ingest.LeaderQuota().Room(now); wait < left {
			left, again = wait, true
		}
	}
	t := s.opts.Clock.NewTimer(left)
	defer t.Stop()
	select {
	case <-ses.feed.C:
		return true
	case <-changed:
		return true
	case <-t.C:
		return again
	case <-ctx.Done():
		return false
	}
}
