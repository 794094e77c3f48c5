package tiering

import (
	"container/list"
	"sync"
)

// lru keeps decoded immutable things up to a budget of bytes. Safe for concurrent use; no I/O happens under its lock.
type lru[K comparable, V any] struct {
	budget int64
	size   func(V) int64
	mu     struct {
		sync.Mutex
		bytes int64
		items map[K]*list.Element
		order *list.List // most recently used first; values are *lruItem[K, V]
	}
}

type lruItem[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

func newLRU[K comparable, V any](budget int64, size func(V) int64) *lru[K, V] {
	l := &lru[K, V]{budget: budget, size: size}
	l.mu.items = map[K]*list.Element{}
	l.mu.order = list.New()
	return l
}

func (l *lru[K, V]) get(key K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.mu.items[key]
	if !ok {
		var zero V
		return zero, false
	}
	l.mu.order.MoveToFront(e)
	return e.Value.(*lruItem[K, V]).value, true
}

// put adds or replaces; a value that exceeds the budget alone is still kept until the next one comes.
func (l *lru[K, V]) put(key K, value V) {
	bytes := l.size(value)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.mu.items[key]; ok {
		l.drop(e)
	}
	l.mu.items[key] = l.mu.order.PushFront(&lruItem[K, V]{key: key, value: value, bytes: bytes})
	l.mu.bytes += bytes
	for l.mu.bytes > l.budget && l.mu.order.Len() > 1 {
		l.drop(l.mu.order.Back())
	}
}

func (l *lru[K, V]) remove(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.mu.items[key]; ok {
		l.drop(e)
	}
}

// drop needs the lock.
func (l *lru[K, V]) drop(e *list.Element) {
	it := l.mu.order.Remove(e).(*lruItem[K, V])
	delete(l.mu.items, it.key)
	l.mu.bytes -= it.bytes
}

func (l *lru[K, V]) bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.bytes
}
