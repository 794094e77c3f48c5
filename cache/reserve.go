package cache

// reservation is the space that a flight holds in the two tiers before it has the block.
type reservation struct {
	memoryBytes int64 // 0: the block is not kept in memory
	diskBytes   int64 // 0: the block is not written to disk
	diskSeq     uint64
}

// reserveMemory makes room for a block in memory, where there can be room.
func (c *Cache) reserveMemory(ref blockRef) reservation {
	c.mu.Lock()
	defer c.mu.Unlock()
	var r reservation
	c.reserveMemoryLocked(ref, &r)
	return r
}

func (c *Cache) reserveMemoryLocked(ref blockRef, r *reservation) {
	evicted, ok := c.mu.memory.reserve(int64(ref.size))
	if ok {
		r.memoryBytes = int64(ref.size)
	}
	c.metrics.evicted(tierMemory, len(evicted))
}

// reserveAll makes room for a block in memory and on disk, where there can be room, and removes the files that it evicts.
func (c *Cache) reserveAll(ref blockRef) reservation {
	var r reservation
	var evicted []*entry[diskEntry]
	c.mu.Lock()
	c.reserveMemoryLocked(ref, &r)
	if c.mu.diskReady && !c.mu.full && !c.opts.Clock.Now().Before(c.mu.writesPaused) {
		n := fileBytes(ref)
		var ok bool
		if evicted, ok = c.mu.disk.reserve(n); ok {
			c.mu.diskSeq++
			r.diskBytes, r.diskSeq = n, c.mu.diskSeq
		}
	}
	c.mu.Unlock()
	c.metrics.evicted(tierDisk, len(evicted))
	c.removeFiles(evicted)
	return r
}

// release gives back what the reservation still holds.
func (c *Cache) release(r *reservation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.memory.release(r.memoryBytes)
	c.mu.disk.release(r.diskBytes)
	*r = reservation{}
}
