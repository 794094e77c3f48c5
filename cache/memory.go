package cache

import (
	"context"
	"fmt"

	"github.com/varvelog/varve/objstore"
)

// lookup is the state of one reader's request for a block: the bytes, or the flight that will bring them.
type lookup struct {
	ref    blockRef
	data   []byte
	flight *flight
	err    error
}

// lookup finds the block in memory, joins its flight, or starts one.
func (c *Cache) lookup(ref blockRef) *lookup {
	l := &lookup{ref: ref}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		l.err = ErrClosed
		return l
	}
	if e := c.mu.memory.get(ref.id); e != nil {
		l.data = e.value
		c.metrics.hit(tierMemory, ref.size)
		return l
	}
	if f := c.mu.flights[ref.id]; f != nil {
		f.join()
		l.flight = f
		c.metrics.hit(tierFlight, ref.size)
		return l
	}
	l.flight = c.startLocked(ref, false)
	return l
}

// wait returns the block's bytes, which are shared. It ends with ctx.
func (l *lookup) wait(ctx context.Context) ([]byte, error) {
	data, err := l.data, l.err
	if l.flight != nil {
		select {
		case <-l.flight.done:
			data, err = l.flight.data, l.flight.err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cache: read %q block %d: %w", l.ref.key, l.ref.id.index, err)
	}
	if len(data) != l.ref.size {
		return nil, fmt.Errorf("cache: read %q block %d: callers disagree on the object's size: %w", l.ref.key, l.ref.id.index, objstore.ErrInvalid)
	}
	return data, nil
}
