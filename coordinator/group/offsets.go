package group

import (
	"cmp"
	"maps"
	"slices"

	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// committed is a committed offset.
type committed struct {
	offset      base.Offset
	leaderEpoch base.LeaderEpoch
	metadata    string
	commitMs    int64
	expireMs    int64        // noTimestamp if the retention setting decides
	topicID     base.TopicID // zero if it was not known
	logOffset   base.Offset  // where the record stands, 0 if this coordinator wrote it: orders it against transactions at replay
}

// namedTopic is a topic as a request means it: later topics of the name have other ids.
type namedTopic struct {
	name string
	id   base.TopicID // zero where no topic has the name
}

// resolve finds the topic that a request means: the one of the id or, before a version has ids, of the name. known is false
// where nothing has the id. A name that comes with an id is not looked at: it may belong to a newer topic by now.
func (o *Options) resolve(byID bool, name string, id base.TopicID) (t namedTopic, known bool) {
	if !byID {
		return namedTopic{name, o.TopicID(name)}, true
	}
	name, known = o.TopicName(id)
	return namedTopic{name, id}, known
}

// offsetTable holds the committed offsets by group, topic and partition.
type offsetTable map[string]map[string]map[int32]committed

func (t offsetTable) get(group, topic string, partition int32) (committed, bool) {
	c, ok := t[group][topic][partition]
	return c, ok
}

func (t offsetTable) put(group, topic string, partition int32, c committed) {
	topics := t[group]
	if topics == nil {
		topics = map[string]map[int32]committed{}
		t[group] = topics
	}
	partitions := topics[topic]
	if partitions == nil {
		partitions = map[int32]committed{}
		topics[topic] = partitions
	}
	partitions[partition] = c
}

// putBytes is put for replay: it makes strings of names that are new only.
func (t offsetTable) putBytes(group, topic []byte, partition int32, c committed) {
	if partitions := t[string(group)][string(topic)]; partitions != nil {
		partitions[partition] = c
		return
	}
	t.put(string(group), string(topic), partition, c)
}

func (t offsetTable) remove(group, topic string, partition int32) {
	topics := t[group]
	delete(topics[topic], partition)
	if len(topics[topic]) == 0 {
		delete(topics, topic)
	}
	if len(topics) == 0 {
		delete(t, group)
	}
}

func (t offsetTable) len() int {
	n := 0
	for _, topics := range t {
		for _, partitions := range topics {
			n += len(partitions)
		}
	}
	return n
}

// offsetKey names a committed offset.
type offsetKey struct {
	group, topic string
	partition    int32
}

// openOffsets are offsets that transactions have written and not yet committed or aborted.
type openOffsets struct {
	byProducer map[base.ProducerID]offsetTable
	count      map[offsetKey]int // producers that hold the offset open
}

func (o *openOffsets) put(p base.ProducerID, k offsetKey, c committed) {
	t := o.byProducer[p]
	if t == nil {
		t = offsetTable{}
		o.byProducer[p] = t
	}
	if _, ok := t.get(k.group, k.topic, k.partition); !ok {
		o.count[k]++
	}
	t.put(k.group, k.topic, k.partition, c)
}

// holds reports whether a transaction holds the offset open.
func (o *openOffsets) holds(k offsetKey) bool { return o.count[k] > 0 }

// group lists the offsets of a group that are held open.
func (o *openOffsets) group(group string) []offsetKey {
	var out []offsetKey
	for k := range o.count {
		if k.group == group {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b offsetKey) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	return out
}

// forget drops an offset from every transaction: a tombstone covers those too.
func (o *openOffsets) forget(k offsetKey) {
	if o.count[k] == 0 {
		return
	}
	delete(o.count, k)
	for _, t := range o.byProducer {
		t.remove(k.group, k.topic, k.partition)
	}
}

// end settles a producer's transaction into the table. An offset that was committed later in the log stays.
func (o *openOffsets) end(p base.ProducerID, commit bool, into offsetTable) {
	t := o.byProducer[p]
	delete(o.byProducer, p)
	for group, topics := range t {
		for topic, partitions := range topics {
			for partition, c := range partitions {
				k := offsetKey{group, topic, partition}
				if o.count[k]--; o.count[k] <= 0 {
					delete(o.count, k)
				}
				if old, ok := into.get(group, topic, partition); commit && (!ok || c.logOffset > old.logOffset) {
					into.put(group, topic, partition, c)
				}
			}
		}
	}
}

// putOffset commits an offset in this step.
func (m *machine) putOffset(fx *runtime.Effects, group, topic string, partition int32, c committed) {
	old, had := m.offsets.get(group, topic, partition)
	m.offsets.put(group, topic, partition, c)
	k, v := offsetRecord(group, topic, partition, c)
	fx.Append(k, v)
	fx.OnUndo(func() { m.restoreOffset(group, topic, partition, old, had) })
}

// removeOffset writes a tombstone in this step; it also ends what transactions hold open of the offset.
func (m *machine) removeOffset(fx *runtime.Effects, group, topic string, partition int32) {
	old, had := m.offsets.get(group, topic, partition)
	k := offsetKey{group, topic, partition}
	held := map[base.ProducerID]committed{}
	if m.open.holds(k) {
		for p, t := range m.open.byProducer {
			if c, ok := t.get(group, topic, partition); ok {
				held[p] = c
			}
		}
	}
	m.offsets.remove(group, topic, partition)
	m.open.forget(k)
	fx.Append(offsetRecordKey(group, topic, partition), nil)
	fx.OnUndo(func() {
		m.restoreOffset(group, topic, partition, old, had)
		for p, c := range held {
			m.open.put(p, k, c)
		}
	})
}

func (m *machine) restoreOffset(group, topic string, partition int32, old committed, had bool) {
	if had {
		m.offsets.put(group, topic, partition, old)
	} else {
		m.offsets.remove(group, topic, partition)
	}
}

// sortedKeys returns the keys of a map in order: what a step does must not depend on the order of a map.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
