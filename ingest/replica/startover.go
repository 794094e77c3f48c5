package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varvelog/varve/internal/base"
)

const (
	// startOverLimit is how many logs of one leader start over at a time. Each asks the bucket for two small things; what they write
	// is synced together.
	startOverLimit = 16
	// freshPatience is how long a log waits for the bucket that its leader may still have whole; then it is fetched.
	freshPatience = 2 * time.Second
	// startOverLook is how long a request may wait at the leader while logs start over, which are to be fetched as soon as they have.
	startOverLook = 50 * time.Millisecond
)

// errAway is why a log does not start over that waited behind one for which the bucket did not answer.
var errAway = errors.New("the bucket does not answer; what the leader still has is fetched")

// startOver is a log that goes on at the end of the tiered range as soon as the bucket has said where that is. Nothing of it is
// fetched meanwhile, and nothing else waits for it: the bucket may be far away, or not there at all (I13).
type startOver struct {
	p           *pulled
	acked       base.Offset        // the log's end
	leaderStart base.Offset        // -1: the leader did not say
	fresh       bool               // asked for by an assignment: the leader has not been asked for what is not kept here
	end         context.CancelFunc // it is wanted no more
	done        chan struct{}      // closed when nothing of it is being applied, nor will be
}

func newStartOver(p *pulled, leaderStart base.Offset) *startOver {
	return &startOver{p: p, acked: p.follower.Log().End, leaderStart: leaderStart, end: func() {}, done: make(chan struct{})}
}

// startFresh begins what assignments ask for.
func (f *Fetcher) startFresh(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mu.fresh) == 0 {
		return
	}
	f.away.Store(false)
	f.startAllOver(ctx, f.mu.fresh)
	f.mu.fresh = nil
}

// startAllOver begins what a response or an assignment asks for; the caller has marked the fetcher busy, or holds the lock.
func (f *Fetcher) startAllOver(ctx context.Context, over []*startOver) {
	for _, o := range over {
		ctx, end := context.WithCancel(ctx)
		o.end = end
		if !f.restarts.Go(func(context.Context) { f.startOver(ctx, o) }) {
			end()
			close(o.done)
		}
	}
}

func (f *Fetcher) startOver(ctx context.Context, o *startOver) {
	defer close(o.done)
	defer o.end()
	log, err := f.restart(ctx, o)
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.p.over = nil; f.mu.parts[o.p.id] != o.p {
		return
	}
	if err == nil {
		err = o.p.follower.Restart(log)
	}
	if err != nil {
		f.failed(o.p, fmt.Errorf("start over: %w", err))
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// restart waits for its turn.
func (f *Fetcher) restart(ctx context.Context, o *startOver) (LogState, error) {
	select {
	case f.restarting <- struct{}{}:
		defer func() { <-f.restarting }()
	case <-ctx.Done():
		return LogState{}, ctx.Err()
	}
	if !o.fresh {
		return f.opts.Log.StartOver(ctx, o.p.id, o.p.follower.epoch, o.acked, o.leaderStart)
	}
	if f.away.Load() {
		return LogState{}, errAway
	}
	ctx, cancel := context.WithTimeout(ctx, freshPatience)
	defer cancel()
	log, err := f.opts.Log.StartOver(ctx, o.p.id, o.p.follower.epoch, o.acked, o.leaderStart)
	if errors.Is(err, context.DeadlineExceeded) {
		f.away.Store(true)
	}
	return log, err
}

// removeLocked takes partitions away; when it returns nothing of theirs is being applied, nor will be. It lets go of the lock while
// it waits.
func (f *Fetcher) removeLocked(ids []ID) {
	f.settleLocked()
	var over []*startOver
	for _, id := range ids {
		if p := f.mu.parts[id]; p != nil && p.over != nil {
			if i := slices.Index(f.mu.fresh, p.over); i >= 0 {
				f.mu.fresh = slices.Delete(f.mu.fresh, i, i+1)
			} else {
				p.over.end()
				over = append(over, p.over)
			}
		}
		delete(f.mu.parts, id)
	}
	if len(over) == 0 {
		return
	}
	f.mu.Unlock()
	for _, o := range over {
		<-o.done
	}
	f.mu.Lock()
	f.settleLocked()
}
