package group

import (
	"log/slog"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
)

// offsetDelete is one OffsetDelete request (KIP-496); resp holds the topics that do not exist.
func (m *machine) offsetDelete(fx *runtime.Effects, r *kmsg.OffsetDeleteRequest, resp *kmsg.OffsetDeleteResponse, p *runtime.Promise) {
	g := m.groups[r.Group]
	switch {
	case g == nil:
		resp.ErrorCode, resp.Topics = codeGroupNotFound, nil
	case g.state != stateEmpty && g.protocolType != consumerProtocolType:
		resp.ErrorCode, resp.Topics = codeNonEmptyGroup, nil
	default:
		for i := range resp.Topics {
			m.deleteTopicOffsets(fx, g, &resp.Topics[i])
		}
	}
	fx.Reply(p, resp)
}

func (m *machine) deleteTopicOffsets(fx *runtime.Effects, g *classicGroup, t *kmsg.OffsetDeleteResponseTopic) {
	for i := range t.Partitions {
		rp := &t.Partitions[i]
		if rp.ErrorCode != 0 {
			continue
		}
		if g.subscribedTo(t.Topic) {
			rp.ErrorCode = codeSubscribed
			continue
		}
		_, has := m.offsets.get(g.id, t.Topic, rp.Partition)
		if has || m.open.holds(offsetKey{g.id, t.Topic, rp.Partition}) {
			m.removeOffset(fx, g.id, t.Topic, rp.Partition)
		}
	}
}

// deleteGroup is one group of a DeleteGroups request.
func (m *machine) deleteGroup(fx *runtime.Effects, id string, p *runtime.Promise) {
	out := kmsg.NewDeleteGroupsResponseGroup()
	out.Group = id
	switch g := m.groups[id]; {
	case g == nil:
		out.ErrorCode = codeGroupNotFound
	case g.state != stateEmpty:
		out.ErrorCode = codeNonEmptyGroup
	default:
		n := m.removeAllOffsets(fx, id)
		fx.Append(groupRecordKey(id), nil)
		m.drop(fx, g)
		m.log.Info("group deleted", slog.String("group", id), slog.Int("offsets", n))
	}
	fx.Reply(p, &out)
}

func (m *machine) removeAllOffsets(fx *runtime.Effects, group string) int {
	n := 0
	topics := m.offsets[group]
	for _, topic := range sortedKeys(topics) {
		for _, partition := range sortedKeys(topics[topic]) {
			m.removeOffset(fx, group, topic, partition)
			n++
		}
	}
	for _, k := range m.open.group(group) {
		m.removeOffset(fx, group, k.topic, k.partition)
		n++
	}
	return n
}

// topicsDeleted drops the offsets of topics that are gone. An offset that was committed for a newer topic of the same name
// stays.
func (m *machine) topicsDeleted(fx *runtime.Effects, topics []string) {
	fx.Split()
	n := 0
	for _, topic := range topics {
		now := m.opts.TopicID(topic)
		for _, group := range sortedKeys(m.offsets) {
			partitions := m.offsets[group][topic]
			for _, partition := range sortedKeys(partitions) {
				if c := partitions[partition]; now.IsZero() || c.topicID != now {
					m.removeOffset(fx, group, topic, partition)
					n++
				}
			}
		}
		for _, k := range sortedOpen(m.open.count, topic) {
			m.removeOffset(fx, k.group, k.topic, k.partition)
			n++
		}
	}
	if n > 0 {
		m.log.Info("offsets of deleted topics dropped", slog.Int("offsets", n), slog.Any("topics", topics))
	}
}

// scheduleExpiry arranges for the next look at offsets that nobody has needed for offsets.retention.minutes (KIP-211).
func (m *machine) scheduleExpiry(fx *runtime.Effects) {
	fx.SetTimer(expiryKey(), max(m.opts.Config().OffsetsRetentionCheck, minRound), func(fx *runtime.Effects) {
		m.expireOffsets(fx)
		m.scheduleExpiry(fx)
	})
}

// expireOffsets drops expired offsets, and groups that have neither members nor offsets left.
func (m *machine) expireOffsets(fx *runtime.Effects) {
	fx.Split()
	n, groups := 0, 0
	for _, id := range sortedKeys(m.groups) {
		g := m.groups[id]
		n += m.expireGroupOffsets(fx, g)
		if g.state == stateEmpty && len(g.pendingJoin) == 0 && len(m.offsets[id]) == 0 && len(m.open.group(id)) == 0 {
			fx.Append(groupRecordKey(id), nil)
			m.drop(fx, g)
			groups++
		}
	}
	m.count(fx, m.inst.expired, n)
	if n > 0 || groups > 0 {
		m.log.Info("offsets expired", slog.Int("offsets", n), slog.Int("groups", groups))
	}
}

// expireGroupOffsets drops what has expired. From when retention counts depends on the group: from the time it became empty;
// from each commit, if it assigns by itself or if its consumers no longer subscribe to the topic; never, while a group
// whose topics are unknown is in use.
func (m *machine) expireGroupOffsets(fx *runtime.Effects, g *classicGroup) int {
	since := int64(noTimestamp)
	switch {
	case g.protocolType == "":
	case g.state == stateEmpty:
		since = g.sinceMs
	case g.protocolType == consumerProtocolType && g.subscribedKnown && g.state == stateStable:
	default:
		return 0
	}
	now, retention := fx.Now.UnixMilli(), m.opts.Config().OffsetsRetention.Milliseconds()
	n := 0
	topics := m.offsets[g.id]
	for _, topic := range sortedKeys(topics) {
		if g.subscribedTo(topic) {
			continue
		}
		for _, partition := range sortedKeys(topics[topic]) {
			c := topics[topic][partition]
			expire := c.commitMs + retention
			switch {
			case c.expireMs != noTimestamp:
				expire = c.expireMs
			case since != noTimestamp:
				expire = since + retention
			}
			if now >= expire && !m.open.holds(offsetKey{g.id, topic, partition}) {
				m.removeOffset(fx, g.id, topic, partition)
				n++
			}
		}
	}
	return n
}

// sortedOpen lists what transactions hold open of a topic.
func sortedOpen(count map[offsetKey]int, topic string) []offsetKey {
	groups := map[string]struct{}{}
	for k := range count {
		if k.topic == topic {
			groups[k.group] = struct{}{}
		}
	}
	var out []offsetKey
	o := openOffsets{count: count}
	for _, g := range sortedKeys(groups) {
		for _, k := range o.group(g) {
			if k.topic == topic {
				out = append(out, k)
			}
		}
	}
	return out
}

// deleteResponse prepares the answer of an OffsetDelete: topics that do not exist have their error.
func (c *Coordinator) deleteResponse(r *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	resp := kmsg.NewPtrOffsetDeleteResponse()
	resp.Version = r.Version
	for _, t := range r.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		exists := c.opts.TopicExists(t.Topic)
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			if !exists {
				rp.ErrorCode = codeUnknownTopicOrPart
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
