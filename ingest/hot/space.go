package hot

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// space decides whether the disk is full. The disk's operations tell it of ENOSPC (block, unblock), a poll of the free space
// does the rest. full is what Store.Full returns; reported is what OnDiskFull was last told, and only the poll touches it.
type space struct {
	opts     *Options
	full     atomic.Bool
	blocked  atomic.Int64 // disk operations that wait for space
	free     atomic.Uint64
	known    atomic.Bool   // free is what the disk said at the last look
	changed  chan struct{} // one token: look again
	reported bool
}

func newSpace(opts *Options) *space { return &space{opts: opts, changed: make(chan struct{}, 1)} }

// block is called when a disk operation begins to wait for space.
func (s *space) block(err error) {
	s.full.Store(true)
	if s.blocked.Add(1) == 1 {
		s.opts.Logger.LogAttrs(context.Background(), slog.LevelError, "disk is full, writes wait", slog.Any("error", err))
	}
	s.signal()
}

// unblock is called when it got the space, or met another error.
func (s *space) unblock() {
	s.blocked.Add(-1)
	s.signal()
}

func (s *space) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// poll looks at the free space at every interval, and when a disk operation starts or stops waiting.
func (s *space) poll(ctx context.Context) {
	for {
		s.look()
		s.report()
		t := s.opts.Clock.NewTimer(s.opts.SpacePollInterval)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-s.changed:
			t.Stop()
		case <-t.C:
		}
	}
}

// look sets full. Between the reserve and an eighth more it stays what it was, so that it does not flicker.
func (s *space) look() {
	free, err := s.opts.FreeSpace()
	if err == nil {
		s.free.Store(free)
	}
	s.known.Store(err == nil)
	enough := s.opts.ReserveBytes
	if s.full.Load() {
		enough += enough / 8
	}
	full := err == nil && free < enough
	s.full.Store(full || s.blocked.Load() > 0)
	if s.blocked.Load() > 0 { // it began to wait between the two lines above
		s.full.Store(true)
	}
}

// report tells OnDiskFull of a change.
func (s *space) report() {
	full := s.full.Load()
	if full == s.reported {
		return
	}
	s.reported = full
	level, msg := slog.LevelInfo, "hot store has space again"
	if full {
		level, msg = slog.LevelError, "hot store is full, produce is refused"
	}
	s.opts.Logger.LogAttrs(context.Background(), level, msg,
		slog.Uint64("freeBytes", s.free.Load()), slog.Uint64("reserveBytes", s.opts.ReserveBytes), slog.Int64("waiting", s.blocked.Load()))
	s.opts.OnDiskFull(full)
}
