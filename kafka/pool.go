package kafka

import "sync"

// syncPool is a sync.Pool that knows its type.
type syncPool[T any] struct{ p sync.Pool }

func (s *syncPool[T]) get() (T, bool) {
	v, ok := s.p.Get().(T)
	return v, ok
}

func (s *syncPool[T]) put(v T) { s.p.Put(v) }
