package runtime

import (
	"fmt"

	"github.com/varvelog/varve/record"
)

// recordOverheadBytes bounds what a record costs in a batch besides its key and value.
const recordOverheadBytes = 24

// pending is a batch in the making or in flight, with everything that hangs on its commit.
type pending struct {
	records []record.Record
	bytes   int
	undo    []func()
	settled []func(*Effects, error)
	parked  []Answer
}

// pipeline orders the batches of a shard: at most one is in flight, the others gather what arrives meanwhile. So a
// commit is shared by all requests that came during the one before it and no request waits for a linger time.
//
// One in flight, not several: a later batch rests on the state that an earlier one made, and with two in flight the
// first could be lost and the second committed. With one, everything not yet handed to the log can be taken back.
type pipeline struct {
	inflight *pending
	queue    []*pending
	bytes    int // of inflight and queue
	maxBatch int
}

// idle reports whether everything appended so far is committed.
func (p *pipeline) idle() bool { return p.inflight == nil && len(p.queue) == 0 }

// last is the batch that the next answer has to wait for; there must be one.
func (p *pipeline) last() *pending {
	if n := len(p.queue); n > 0 {
		return p.queue[n-1]
	}
	return p.inflight
}

// add takes over the records of fx and what hangs on them.
func (p *pipeline) add(fx *Effects) {
	if fx.split {
		for _, r := range fx.records {
			p.room(len(r.Key)+len(r.Value)+recordOverheadBytes).put(p, r)
		}
	} else {
		b := p.room(fx.bytes)
		for _, r := range fx.records {
			b.put(p, r)
		}
	}
	b := p.last()
	b.undo = append(b.undo, fx.undo...)
	b.settled = append(b.settled, fx.settled...)
	b.parked = append(b.parked, fx.parked...)
}

// room returns the gathering batch if n more bytes fit, or a new one.
func (p *pipeline) room(n int) *pending {
	if len(p.queue) > 0 {
		if b := p.last(); b.bytes+n <= p.maxBatch {
			return b
		}
	}
	b := &pending{}
	p.queue = append(p.queue, b)
	return b
}

func (b *pending) put(p *pipeline, r record.Record) {
	n := len(r.Key) + len(r.Value) + recordOverheadBytes
	b.records = append(b.records, r)
	b.bytes += n
	p.bytes += n
}

// take moves the first gathered batch to flight, if none is, and returns it.
func (p *pipeline) take() *pending {
	if p.inflight != nil || len(p.queue) == 0 {
		return nil
	}
	p.inflight = p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	return p.inflight
}

// committed ends the flight well.
func (p *pipeline) committed() *pending {
	b := p.inflight
	p.inflight = nil
	p.bytes -= b.bytes
	return b
}

// lost ends the flight badly: it returns everything that is taken back, oldest first, and leaves the pipeline empty.
func (p *pipeline) lost() []*pending {
	all := append([]*pending{p.inflight}, p.queue...)
	*p = pipeline{maxBatch: p.maxBatch}
	return all
}

// build makes the bytes of a batch. Offsets count from 0; the log sets the base.
func (b *pending) build(codec record.Codec) (record.Batch, error) {
	for i := range b.records {
		b.records[i].Offset = offsetAt(i)
	}
	batch, err := record.Build(buildHeader(codec), b.records)
	if err != nil {
		return nil, fmt.Errorf("build batch of %d coordinator records: %w", len(b.records), err)
	}
	return batch, nil
}
