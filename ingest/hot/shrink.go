package hot

// ShrinkCache empties the block cache: an idle broker has no use for what its last readers left there.
func (s *Store) ShrinkCache() {
	if s.use() != nil {
		return
	}
	defer s.lifetime.exit()
	s.cache.Reserve(int(s.opts.CacheBytes + 2*s.opts.MemTableBytes))() // evicts to make room, and gives the room back
}
