package etcdkv

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver"
)

// leadership is the latest knowledge of whether this member is raft's leader.
type leadership struct {
	mu      sync.Mutex
	leading bool
	changed chan struct{}
}

func newLeadership() *leadership { return &leadership{changed: make(chan struct{})} }

func (l *leadership) set(leading bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leading == leading {
		return
	}
	l.leading = leading
	close(l.changed)
	l.changed = make(chan struct{})
}

// Leadership tells whether this node's member is raft's leader, and gives a channel that is closed at the next change. It is
// a hint: a member that is cut off learns of its loss an election timeout late, so what a leader writes must be fenced. A
// non-voter never leads.
func (m *Member) Leadership() (leading bool, changed <-chan struct{}) {
	m.leadership.mu.Lock()
	defer m.leadership.mu.Unlock()
	return m.leadership.leading, m.leadership.changed
}

// GiveLeadership makes another member raft's leader, where this one is. Without others, and where it is not, it does nothing.
func (m *Member) GiveLeadership(ctx context.Context) error {
	if m.etcd == nil || m.kv.others == nil {
		return nil
	}
	done := make(chan error, 1)
	if !m.group.Go(func(context.Context) {
		m.giving.Add(1)
		defer m.giving.Add(-1)
		done <- m.etcd.Server.TryTransferLeadershipOnShutdown()
	}) {
		return nil // it stops, and hands over itself
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("etcd: give leadership away: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("etcd: give leadership away: %w", ctx.Err())
	}
}

// followLeadership runs until ctx or the member ends. etcd notifies of each new leader, but not when a leader steps down
// because it has lost its quorum: a leader among several looks at itself, lookEvery apart.
func (m *Member) followLeadership(ctx context.Context, server *etcdserver.EtcdServer, lookEvery time.Duration) {
	defer m.leadership.set(false)
	for {
		changed := server.LeaderChangedNotify()
		leading := server.Leader() == server.MemberID()
		m.leadership.set(leading)
		var look <-chan time.Time
		stop := func() bool { return true }
		if leading && lookEvery > 0 {
			timer := m.opts.Clock.NewTimer(lookEvery)
			look, stop = timer.C, timer.Stop
		}
		select {
		case <-changed:
			if m.kv.others != nil {
				m.kv.newReign()
			}
		case <-look:
		case <-server.StopNotify():
			stop()
			return
		case <-ctx.Done():
			stop()
			return
		}
		stop()
	}
}
