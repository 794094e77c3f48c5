package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// flight is the one load of a block. It outlives the readers that wait for it, so that a cancelled fetch does not make the
// next one start over; it ends with the cache. It stays findable until the block is on disk or will not be.
type flight struct {
	blockRef
	readAhead bool
	demand    chan struct{} // closed once somebody waits

	// Guarded by Cache.mu.
	demanded bool
	dropped  bool // the object was dropped: keep nothing

	// Written before done is closed, read after.
	done chan struct{}
	data []byte
	err  error
}

// join marks that somebody waits. The caller holds Cache.mu.
func (f *flight) join() {
	if !f.demanded {
		f.demanded = true
		close(f.demand)
	}
}

// startLocked starts the flight of a block. The caller holds Cache.mu and knows that there is none.
func (c *Cache) startLocked(ref blockRef, readAhead bool) *flight {
	f := &flight{blockRef: ref, readAhead: readAhead, demand: make(chan struct{}), done: make(chan struct{})}
	if !readAhead {
		f.join()
	}
	c.mu.flights[ref.id] = f
	if !c.group.Go(func(ctx context.Context) { c.fly(ctx, f) }) {
		delete(c.mu.flights, ref.id)
		f.err = ErrClosed
		close(f.done)
	}
	return f
}

// fly loads the block, answers the readers, and stores it.
func (c *Cache) fly(ctx context.Context, f *flight) {
	var r reservation
	data, err := c.loadFromDisk(ctx, f, &r)
	if err == nil && data == nil {
		data, err = c.download(ctx, f, &r)
	}
	if err != nil && ctx.Err() != nil {
		err = ErrClosed
	}
	c.land(f, &r, data, err)
	if r.diskBytes > 0 {
		c.store(f, &r, data)
	}
	c.mu.Lock()
	delete(c.mu.flights, f.id)
	if f.readAhead {
		c.mu.readAheadBytes -= int64(f.size)
	}
	c.mu.Unlock()
}

// download gets the block from the bucket. Read-ahead that nobody waits for takes one of the few tokens of read-ahead
// first, so that it never delays a reader by more than the downloads that already run.
func (c *Cache) download(ctx context.Context, f *flight, r *reservation) ([]byte, error) {
	if f.readAhead {
		select {
		case c.prefetches <- struct{}{}:
			defer func() { <-c.prefetches }()
		case <-f.demand:
		case <-ctx.Done():
			return nil, ErrClosed
		}
	}
	select {
	case c.downloads <- struct{}{}:
		defer func() { <-c.downloads }()
	case <-ctx.Done():
		return nil, ErrClosed
	}
	*r = c.reserveAll(f.blockRef)
	data, err := c.source.Get(ctx, f.key, f.off, int64(f.size))
	if err == nil && len(data) != f.size {
		err = fmt.Errorf("%d of %d bytes: %w", len(data), f.size, io.ErrUnexpectedEOF)
	}
	c.metrics.downloaded(f.readAhead, len(data), err)
	return data, err
}

// land answers the readers and keeps the block in memory.
func (c *Cache) land(f *flight, r *reservation, data []byte, err error) {
	c.mu.Lock()
	if err != nil || f.dropped {
		c.mu.memory.release(r.memoryBytes)
		c.mu.disk.release(r.diskBytes)
		*r = reservation{}
	} else if r.memoryBytes > 0 {
		c.mu.memory.add(f.id, r.memoryBytes, data)
		r.memoryBytes = 0
	}
	c.mu.Unlock()
	f.data, f.err = data, err
	if err != nil {
		f.data = nil
	}
	close(f.done)
}

// store writes the block to disk, or skips it where the disk is busy.
func (c *Cache) store(f *flight, r *reservation, data []byte) {
	select {
	case c.diskWrites <- struct{}{}:
		defer func() { <-c.diskWrites }()
	default:
		c.metrics.writeSkipped()
		c.release(r)
		return
	}
	name, err := c.disk.write(f.blockRef, r.diskSeq, data)
	if err != nil {
		c.writeFailed(f, r, err)
		return
	}
	c.mu.Lock()
	kept := !f.dropped && c.mu.disk.add(f.id, r.diskBytes, diskEntry{name: name})
	if f.dropped {
		c.mu.disk.release(r.diskBytes)
	}
	c.mu.Unlock()
	if !kept {
		_ = c.disk.remove(name) // an unused file: the next scan finds it
	}
}

// writeFailed stops the disk tier's writes for a while: a full disk is not worth asking about for every block.
func (c *Cache) writeFailed(f *flight, r *reservation, err error) {
	c.release(r)
	c.metrics.writeFailed()
	c.mu.Lock()
	c.mu.writesPaused = c.opts.Clock.Now().Add(c.opts.WritePause)
	c.mu.Unlock()
	c.opts.Logger.Warn("cache block not written, disk tier pauses its writes",
		slogKey(f.key), slogBlock(f.id.index), slogErr(err))
}

// loadFromDisk returns the block from the disk tier, or nil where it is not there or not intact.
func (c *Cache) loadFromDisk(ctx context.Context, f *flight, r *reservation) ([]byte, error) {
	c.mu.Lock()
	e := c.mu.disk.get(f.id)
	c.mu.Unlock()
	if e == nil {
		return nil, nil
	}
	select {
	case c.diskReads <- struct{}{}:
		defer func() { <-c.diskReads }()
	case <-ctx.Done():
		return nil, ErrClosed
	}
	*r = c.reserveMemory(f.blockRef)
	data, err := c.disk.read(f.blockRef, e.value.name)
	if err == nil {
		c.metrics.hit(tierDisk, f.size)
		return data, nil
	}
	c.release(r)
	if errors.Is(err, errBadBlock) {
		c.metrics.damaged()
		c.opts.Logger.Warn("cache block on disk is damaged, loading it again", slogKey(f.key), slogBlock(f.id.index), slogErr(err))
	}
	c.forget(e)
	return nil, nil
}

// forget removes a block file that cannot be read.
func (c *Cache) forget(e *entry[diskEntry]) {
	c.mu.Lock()
	if c.mu.disk.objects[e.id.object][e.id.index] == e {
		c.mu.disk.remove(e)
	}
	c.mu.Unlock()
	_ = c.disk.remove(e.value.name) // an unused file: the next scan finds it
}
