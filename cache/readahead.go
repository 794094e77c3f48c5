package cache

// Prefetch starts loading the blocks of [off, off+length) in the background as far as the budget allows: at most
// Options.ReadAheadBytes are under way; what is beyond is not loaded, and the caller will ask again when it gets there.
// Blocks that are in memory or under way cost nothing. It never blocks.
func (c *Cache) Prefetch(key string, objectSize, off, length int64) {
	off = max(off, 0)
	end := objectSize
	if length < objectSize-off {
		end = off + length
	}
	if off >= end || (c.opts.MemoryBytes == 0 && c.opts.DiskBytes == 0) {
		return
	}
	object := objectOf(key)
	bs := int64(c.opts.BlockBytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := off / bs; i*bs < end; i++ {
		ref := c.refOf(object, key, objectSize, i)
		onDisk := c.opts.MemoryBytes == 0 && c.mu.disk.has(ref.id) // there is no better place for it
		if onDisk || c.mu.memory.has(ref.id) || c.mu.flights[ref.id] != nil {
			continue
		}
		if c.mu.closed || c.mu.readAheadBytes+int64(ref.size) > c.opts.ReadAheadBytes {
			c.metrics.readAheadRefused()
			return
		}
		c.mu.readAheadBytes += int64(ref.size)
		c.startLocked(ref, true)
	}
}
