package group

import (
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
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
		name, known, wanted := t.Topic, true, base.TopicID{}
		if version >= fetchTopicIDs && name == "" {
			name, known = m.opts.TopicName(t.TopicID)
			wanted = t.TopicID
		}
		for _, partition := range t.Partitions {
			rp := m.fetchOne(q.Group, name, partition, wanted, stable)
			if !known {
				rp = noOffset(partition)
				rp.ErrorCode = codeUnknownTopicID
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		out = append(out, rt)
	}
	return out
}

// fetchAll lists everything the group has committed, in order of names. Asked by ids, topics that have none are left out.
func (m *machine) fetchAll(version int16, group string, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	out := []kmsg.OffsetFetchResponseGroupTopic{}
	topics := m.offsets[group]
	for _, topic := range sortedKeys(topics) {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic = topic
		if version >= fetchTopicIDs {
			id := m.opts.TopicID(topic)
			if id.IsZero() {
				continue
			}
			rt.TopicID = id
		}
		for _, partition := range sortedKeys(topics[topic]) {
			rt.Partitions = append(rt.Partitions, m.fetchOne(group, topic, partition, base.TopicID{}, stable))
		}
		out = append(out, rt)
	}
	return out
}

// fetchOne looks one offset up. stable refuses to answer while a transaction may change it (KIP-447); wanted, if not zero,
// does not take an offset of an earlier topic of the same name.
func (m *machine) fetchOne(group, topic string, partition int32, wanted base.TopicID, stable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	rp := noOffset(partition)
	if stable && m.open.holds(offsetKey{group, topic, partition}) {
		rp.ErrorCode = codeUnstableOffset
		return rp
	}
	c, ok := m.offsets.get(group, topic, partition)
	if !ok || (!wanted.IsZero() && !c.topicID.IsZero() && c.topicID != wanted) {
		return rp
	}
	rp.Offset, rp.LeaderEpoch, rp.Metadata = int64(c.offset), int32(c.leaderEpoch), &c.metadata
	return rp
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
