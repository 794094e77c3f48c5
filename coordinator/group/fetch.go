package group

import (
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
)

// Versions from which OffsetFetch behaves differently.
const (
	fetchAllTopics  = 2  // null topics ask for all; errors have a place at the top
	fetchManyGroups = 8  // KIP-709
	fetchTopicIDs   = 10 // KIP-848: topics by id
)

// fetchGroup is one group of an OffsetFetch request, whatever its version. The answer waits for the commits before it: an
// offset that is fetched is committed.
func (m *machine) fetchGroup(fx *runtime.Effects, version int16, q *kmsg.OffsetFetchRequestGroup, stable bool, p *runtime.Promise) {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = q.Group
	if q.Topics == nil {
		out.Topics = m.fetchAll(version, q.Group, stable)
	} else {
		out.Topics = m.fetchSome(version, q, stable)
	}
	fx.Reply(p, &out)
}

func (m *machine) fetchSome(version int16, q *kmsg.OffsetFetchRequestGroup, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	out := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(q.Topics))
	for i := range q.Topics {
		t := &q.Topics[i]
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		topic, known := m.opts.resolve(version >= fetchTopicIDs, t.Topic, t.TopicID)
		for _, partition := range t.Partitions {
			rp := noOffset(partition)
			if known {
				rp, _ = m.fetchOne(q.Group, topic, partition, stable)
			} else {
				rp.ErrorCode = codeUnknownTopicID
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		out = append(out, rt)
	}
	return out
}

// fetchAll lists everything the group has committed, in order of names; what counts for an earlier topic of the name is not
// listed. Asked by ids, topics that have none are left out.
func (m *machine) fetchAll(version int16, group string, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	out := []kmsg.OffsetFetchResponseGroupTopic{}
	topics := m.offsets[group]
	for _, name := range sortedKeys(topics) {
		topic := namedTopic{name, m.opts.TopicID(name)}
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic = name
		if version >= fetchTopicIDs {
			if topic.id.IsZero() {
				continue
			}
			rt.TopicID = topic.id
		}
		for _, partition := range sortedKeys(topics[name]) {
			if rp, ok := m.fetchOne(group, topic, partition, stable); ok {
				rt.Partitions = append(rt.Partitions, rp)
			}
		}
		if len(rt.Partitions) > 0 {
			out = append(out, rt)
		}
	}
	return out
}

// fetchOne looks one offset up; ok is false where there is none. stable refuses to answer while a transaction may change it
// (KIP-447).
//
// An offset of an earlier topic of the name counts as none: its tombstone is written where the deletion is heard of, and is
// missing where nobody led the shard then or the append was lost. It is not dropped for good here or when the shard is
// loaded, since the image may be older than the commit: a predecessor that knew the new topic already may have written it.
func (m *machine) fetchOne(group string, topic namedTopic, partition int32, stable bool) (rp kmsg.OffsetFetchResponseGroupTopicPartition, ok bool) {
	rp = noOffset(partition)
	if stable && m.open.holds(offsetKey{group, topic.name, partition}) {
		rp.ErrorCode = codeUnstableOffset
		return rp, true
	}
	c, ok := m.offsets.get(group, topic.name, partition)
	if !ok || (!topic.id.IsZero() && !c.topicID.IsZero() && c.topicID != topic.id) {
		return rp, false
	}
	rp.Offset, rp.LeaderEpoch, rp.Metadata = int64(c.offset), int32(c.leaderEpoch), &c.metadata
	return rp, true
}

// noOffset is the answer where nothing is committed.
func noOffset(partition int32) kmsg.OffsetFetchResponseGroupTopicPartition {
	rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	empty := ""
	rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = partition, -1, -1, &empty
	return rp
}

// fetchQueries turns any version of the request into groups.
func fetchQueries(r *kmsg.OffsetFetchRequest) []kmsg.OffsetFetchRequestGroup {
	if r.Version >= fetchManyGroups {
		return r.Groups
	}
	q := kmsg.NewOffsetFetchRequestGroup()
	q.Group = r.Group
	if r.Topics != nil || r.Version < fetchAllTopics {
		q.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range r.Topics {
		qt := kmsg.NewOffsetFetchRequestGroupTopic()
		qt.Topic, qt.Partitions = t.Topic, t.Partitions
		q.Topics = append(q.Topics, qt)
	}
	return []kmsg.OffsetFetchRequestGroup{q}
}

// fetchResponse turns the groups into a response of the request's version. Before version 2 an error of the group is one of
// each partition.
func fetchResponse(r *kmsg.OffsetFetchRequest, groups []kmsg.OffsetFetchResponseGroup) *kmsg.OffsetFetchResponse {
	resp := kmsg.NewPtrOffsetFetchResponse()
	resp.Version = r.Version
	if r.Version >= fetchManyGroups {
		resp.Groups = groups
		return resp
	}
	g := &groups[0]
	resp.ErrorCode = g.ErrorCode
	for i := range g.Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = g.Topics[i].Topic
		for _, p := range g.Topics[i].Partitions {
			rp := kmsg.NewOffsetFetchResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// fetchFailure is the answer for a group whose offsets cannot be looked at.
func fetchFailure(version int16, q *kmsg.OffsetFetchRequestGroup, code int16) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group, out.ErrorCode = q.Group, code
	out.Topics = []kmsg.OffsetFetchResponseGroupTopic{}
	if version >= fetchAllTopics {
		return out
	}
	for _, t := range q.Topics {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic = t.Topic
		for _, partition := range t.Partitions {
			rp := noOffset(partition)
			rp.ErrorCode = code
			rt.Partitions = append(rt.Partitions, rp)
		}
		out.Topics = append(out.Topics, rt)
	}
	return out
}
