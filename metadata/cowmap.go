package metadata

import "maps"

// cowShards bounds what a change of one key copies: one shard of the map and the table of shards.
const cowShards = 64

// cowMap is a map that images share: a copy of the struct is a snapshot, and a change copies only the shard that it falls
// into. Not safe for concurrent change; reading a published snapshot is.
type cowMap[K comparable, V any] struct {
	hash   func(K) uint8
	shards [cowShards]map[K]V
	owned  [cowShards]bool // copied since the snapshot: may be changed in place
	// version of a shard grows with each snapshot that changes it.
	version [cowShards]uint64
	n       int
}

func newCowMap[K comparable, V any](hash func(K) uint8) cowMap[K, V] {
	return cowMap[K, V]{hash: hash}
}

// snapshot returns a map that shares everything with this one, which must not be changed any more.
func (m *cowMap[K, V]) snapshot() cowMap[K, V] {
	next := *m
	next.owned = [cowShards]bool{}
	return next
}

func (m *cowMap[K, V]) get(k K) (V, bool) {
	v, ok := m.shards[m.hash(k)%cowShards][k]
	return v, ok
}

func (m *cowMap[K, V]) own(k K) map[K]V {
	i := m.hash(k) % cowShards
	if !m.owned[i] {
		m.shards[i] = maps.Clone(m.shards[i])
		m.owned[i] = true
		m.version[i]++
	}
	if m.shards[i] == nil {
		m.shards[i] = map[K]V{}
	}
	return m.shards[i]
}

func (m *cowMap[K, V]) set(k K, v V) {
	shard := m.own(k)
	if _, ok := shard[k]; !ok {
		m.n++
	}
	shard[k] = v
}

func (m *cowMap[K, V]) remove(k K) {
	if _, ok := m.get(k); !ok {
		return
	}
	delete(m.own(k), k)
	m.n--
}

func (m *cowMap[K, V]) all(yield func(K, V) bool) {
	for _, shard := range m.shards {
		for k, v := range shard {
			if !yield(k, v) {
				return
			}
		}
	}
}

// hashString is FNV-1a folded to a byte.
func hashString(s string) uint8 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return uint8(h ^ h>>8 ^ h>>16 ^ h>>24)
}

// changed reports whether a shard may differ from that of an older snapshot.
func (m *cowMap[K, V]) changed(old *cowMap[K, V], shard int) bool {
	return m.version[shard] != old.version[shard]
}
