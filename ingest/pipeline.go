package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/hot"
)

// pending is an append whose order is fixed and whose durability is not known yet.
type pending struct {
	commit   *hot.Commit // nil where nothing has to be synced (duplicates only, or varve.sync=relaxed)
	parts    []part
	receipt  *Receipt
	deadline time.Time // zero: wait for ever
	after    func()    // called once the receipt is finished; may be nil
}

// pipeline completes appends in the order in which they entered the WAL: since a sync covers everything before it, waiting
// one by one costs no concurrency. A duplicate waits behind the batch that it repeats.
type pipeline struct {
	g  *Ingest
	mu struct {
		sync.Mutex
		queue    []*pending
		current  []*pending // taken by run, not finished yet
		stopped  bool
		wake     sync.Cond
		inFlight int
	}
}

func newPipeline(g *Ingest) *pipeline {
	p := &pipeline{g: g}
	p.mu.wake.L = &p.mu.Mutex
	return p
}

// push adds an append; the caller holds the locks of its partitions, which is what makes the order right.
func (p *pipeline) push(pd *pending) {
	p.mu.Lock()
	p.mu.queue = append(p.mu.queue, pd)
	p.mu.inFlight++
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
		p.mu.inFlight -= len(batch)
		p.mu.current = nil
		p.mu.Unlock()
		p.mu.wake.Broadcast()
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

// complete waits for one append's sync, moves the high watermarks and answers.
func (p *pipeline) complete(pd *pending) {
	var err error
	if pd.commit != nil {
		if err = pd.commit.Wait(); err != nil {
			err = fmt.Errorf("sync: %w: %w", kerr.KafkaStorageError, err)
			p.g.log.Error("append is not durable", slog.Any("err", err))
		}
	}
	for i := range pd.parts {
		pt := &pd.parts[i]
		if err == nil && !pt.failed && !pt.duplicate {
			pt.p.mu.Lock()
			pt.p.committedLocked(pt.end)
			pt.p.mu.tail.push(pt.batch)
			pt.p.mu.Unlock()
			p.g.tail.add(pt.p, len(pt.batch))
			p.g.metrics.appended(len(pt.batch), pt.batch.Count())
		}
	}
	pd.receipt.finish(err)
	if pd.after != nil {
		pd.after()
	}
}

// expire answers what has waited past its deadline with REQUEST_TIMED_OUT; the append itself goes on.
func (p *pipeline) expire(now time.Time) {
	p.mu.Lock()
	late := make([]*pending, 0, 8)
	for _, q := range [][]*pending{p.mu.current, p.mu.queue} {
		for _, pd := range q {
			if !pd.deadline.IsZero() && now.After(pd.deadline) {
				late = append(late, pd)
			}
		}
	}
	p.mu.Unlock()
	for _, pd := range late {
		pd.receipt.finish(fmt.Errorf("append is not durable yet: %w", kerr.RequestTimedOut))
	}
}

// idle reports whether nothing is under way.
func (p *pipeline) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.inFlight == 0
}

// drain waits until everything that was pushed is complete.
func (p *pipeline) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.inFlight > 0 {
		p.mu.wake.Wait()
	}
}
