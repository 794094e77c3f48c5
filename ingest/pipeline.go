package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/record"
)

// pending is an append whose order is fixed and whose durability is not known yet.
type pending struct {
	commit   *hot.Commit // nil where nothing has to be synced (duplicates only, or varve.sync=relaxed)
	parts    []part
	receipt  *Receipt
	size     int64     // what it holds in memory, as enter counted it
	wasteful bool      // its batches are a small part of what they keep in memory: the tail takes copies
	deadline time.Time // zero: wait for ever
	all      bool      // acks=all: answered when it is committed, else when it is synced here
	after    func()    // called once the receipt is finished; may be nil
}

// pipeline completes appends in the order in which they entered the WAL: since a sync covers everything before it, waiting
// one by one costs no concurrency. A duplicate waits behind the batch that it repeats.
//
// What is between enter and leave is bounded by Options.PendingBytes: a disk that does not answer must not fill the memory
// with appends whose clients have given up (I10).
type pipeline struct {
	g    *Ingest
	busy chan struct{} // signalled when the first append enters
	mu   struct {
		sync.Mutex
		queue    []*pending
		current  []*pending // taken by run, not finished yet
		closed   bool       // nothing enters any more
		stopped  bool
		wake     sync.Cond
		inFlight int
		waiting  int                   // in enter, for room
		bytes    int64                 // of what is in flight
		awaiting map[*pending]struct{} // synced here, they wait for the high watermark, until a deadline
		room     chan struct{}         // closed when it may be worth to look again; nil while nobody waits
	}
}

func newPipeline(g *Ingest) *pipeline {
	p := &pipeline{g: g, busy: make(chan struct{}, 1)}
	p.mu.wake.L = &p.mu.Mutex
	p.mu.awaiting = map[*pending]struct{}{}
	return p
}

// enter admits an append of size bytes; leave must follow. Where it would go past the bound it waits for room: until the
// append's deadline (zero: none), the end of ctx, or until the disk is full. One that is larger than the bound goes alone.
func (p *pipeline) enter(ctx context.Context, size int64, deadline time.Time) error {
	for {
		p.mu.Lock()
		switch {
		case p.mu.closed:
			p.mu.Unlock()
			return fmt.Errorf("append: the broker stops: %w", kerr.NotLeaderForPartition)
		case p.mu.bytes == 0 || p.mu.bytes+size <= p.g.opts.PendingBytes:
			p.admitLocked(size)
			p.mu.Unlock()
			return nil
		}
		if p.mu.room == nil {
			p.mu.room = make(chan struct{})
		}
		room := p.mu.room
		p.mu.waiting++
		p.mu.Unlock()
		var err error
		select {
		case <-room: // or a tick of expiry
		case <-ctx.Done():
			err = fmt.Errorf("append waits for room: %w", context.Cause(ctx))
		}
		p.mu.Lock()
		p.mu.waiting--
		p.mu.Unlock()
		switch {
		case err != nil:
			return err
		case p.g.store.Full():
			return fmt.Errorf("append: the data disk is full: %w", kerr.KafkaStorageError)
		case !deadline.IsZero() && p.g.clock.Now().After(deadline):
			return fmt.Errorf("append waits for room: %w", kerr.RequestTimedOut)
		}
	}
}

// enterNow is enter for the broker's own appends, of which each coordinator shard has one: they do not wait.
func (p *pipeline) enterNow(size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return fmt.Errorf("append: the broker stops: %w", kerr.NotLeaderForPartition)
	}
	p.admitLocked(size)
	return nil
}

func (p *pipeline) admitLocked(size int64) {
	p.mu.inFlight++
	p.mu.bytes += size
	select {
	case p.busy <- struct{}{}:
	default:
	}
}

// leave ends what enter admitted.
func (p *pipeline) leave(size int64) {
	p.mu.Lock()
	p.mu.inFlight--
	p.mu.bytes -= size
	p.makeRoomLocked()
	idle := p.mu.inFlight == 0
	p.mu.Unlock()
	if idle {
		p.mu.wake.Broadcast()
	}
}

// makeRoomLocked lets those who wait for room look again.
func (p *pipeline) makeRoomLocked() {
	if p.mu.room != nil {
		close(p.mu.room)
		p.mu.room = nil
	}
}

// push adds an append; the caller holds the locks of its partitions, which is what makes the order right.
func (p *pipeline) push(pd *pending) {
	p.mu.Lock()
	p.mu.queue = append(p.mu.queue, pd)
	p.mu.Unlock()
	p.mu.wake.Broadcast()
}

// run completes appends until the queue is empty and ctx has ended.
func (p *pipeline) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.mu.stopped = true
		p.mu.Unlock()
		p.mu.wake.Broadcast()
	})
	defer stop()
	for {
		batch := p.take()
		if batch == nil {
			return
		}
		for _, pd := range batch {
			p.complete(pd)
		}
		p.mu.Lock()
		p.mu.current = nil
		p.mu.Unlock()
	}
}

func (p *pipeline) take() []*pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.mu.queue) == 0 {
		if p.mu.stopped {
			return nil
		}
		p.mu.wake.Wait()
	}
	p.mu.current, p.mu.queue = p.mu.queue, nil
	return p.mu.current
}

// complete waits for one append's sync and answers, or leaves that to the high watermark.
func (p *pipeline) complete(pd *pending) {
	var err error
	if pd.commit != nil {
		if err = pd.commit.Wait(); err != nil {
			err = fmt.Errorf("sync: %w: %w", kerr.KafkaStorageError, err)
			p.g.log.Error("append is not durable", slog.Any("err", err))
		}
	}
	if err != nil {
		pd.receipt.finish(err)
		p.leave(pd.size)
		if pd.after != nil {
			pd.after()
		}
		return
	}
	for i := range pd.parts {
		pt := &pd.parts[i]
		b := pt.batch
		if pd.wasteful {
			b = append(make(record.Batch, 0, len(b)), b...)
		}
		answers := pt.p.synced(pd, pt, b)
		if !pt.failed && !pt.duplicate {
			p.g.tail.add(pt.p, b)
			p.g.metrics.appended(len(b), b.Count())
		}
		p.g.settle(answers)
	}
	p.await(pd)
	p.leave(pd.size)
}

// await minds the deadline of an append that waits for the high watermark.
func (p *pipeline) await(pd *pending) {
	if pd.deadline.IsZero() || pd.receipt.isFinished() {
		return
	}
	p.mu.Lock()
	p.mu.awaiting[pd] = struct{}{}
	p.mu.Unlock()
	if pd.receipt.isFinished() { // in between
		p.answered(pd)
	}
}

// answered ends await.
func (p *pipeline) answered(pd *pending) {
	if pd.deadline.IsZero() {
		return
	}
	p.mu.Lock()
	delete(p.mu.awaiting, pd)
	p.mu.Unlock()
}

// watch answers what has waited past its deadline while appends are under way. It is no part of housekeeping, which waits
// for the disk itself.
func (p *pipeline) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.busy:
		}
		for p.expire(p.g.clock.Now()) {
			if !p.g.sleep(ctx, nil, p.g.opts.TickEvery) {
				return
			}
		}
	}
}

// expire answers what has waited past its deadline with REQUEST_TIMED_OUT; the append itself goes on. It reports whether
// anything is under way.
func (p *pipeline) expire(now time.Time) bool {
	p.mu.Lock()
	late := make([]*pending, 0, 8)
	for _, q := range [][]*pending{p.mu.current, p.mu.queue} {
		for _, pd := range q {
			if !pd.deadline.IsZero() && now.After(pd.deadline) {
				late = append(late, pd)
			}
		}
	}
	for pd := range p.mu.awaiting {
		if now.After(pd.deadline) {
			late = append(late, pd)
			delete(p.mu.awaiting, pd)
		}
	}
	p.makeRoomLocked()
	busy := p.mu.inFlight > 0 || p.mu.waiting > 0 || len(p.mu.awaiting) > 0
	p.mu.Unlock()
	for _, pd := range late {
		pd.receipt.finish(fmt.Errorf("append is not committed yet: %w", kerr.RequestTimedOut))
	}
	return busy
}

// pendingBytes is what is between enter and leave.
func (p *pipeline) pendingBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.bytes
}

// close refuses what would enter from now on.
func (p *pipeline) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	p.makeRoomLocked()
}

// drain waits until everything that has entered is complete.
func (p *pipeline) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.inFlight > 0 {
		p.mu.wake.Wait()
	}
}
