package group

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
)

// Versions from which OffsetCommit behaves differently.
const (
	commitGroupNotFound = 9  // KIP-848: an unknown group is named as such
	commitTopicIDs      = 10 // KIP-848: topics by id
)

// offsetCommit is one OffsetCommit request. resp is prepared by commitResponse: partitions that cannot be committed have their
// error, the others are committed here. topics are those that the request meant when it came, in its order: what was deleted or
// made anew since is refused, as the offset would count for the wrong topic.
func (m *machine) offsetCommit(fx *runtime.Effects, r *kmsg.OffsetCommitRequest, topics []namedTopic,
	resp *kmsg.OffsetCommitResponse, p *runtime.Promise,
) {
	existed := m.groups[r.Group] != nil
	code := m.validateCommit(fx, r)
	now := fx.Now.UnixMilli()
	expire := int64(noTimestamp)
	if r.RetentionTimeMillis != -1 && r.Version >= 2 && r.Version <= 4 {
		expire = now + r.RetentionTimeMillis
	}
	limit, n := m.opts.Config().OffsetMetadataMaxChars, 0
	for i, topic := range topics {
		id := m.opts.TopicID(topic.name)
		for j := range r.Topics[i].Partitions {
			rp, out := &r.Topics[i].Partitions[j], &resp.Topics[i].Partitions[j]
			switch {
			case out.ErrorCode != 0: // does not exist
			case code != 0:
				out.ErrorCode = code
			case id != topic.id:
				out.ErrorCode = unknownTopic(r.Version)
			case rp.Metadata != nil && metadataTooLong(*rp.Metadata, limit):
				out.ErrorCode = codeMetadataTooLarge
			default:
				c := committed{
					offset: base.Offset(rp.Offset), leaderEpoch: base.NoLeaderEpoch, commitMs: now, expireMs: expire,
					topicID: id,
				}
				if rp.LeaderEpoch >= 0 {
					c.leaderEpoch = base.LeaderEpoch(rp.LeaderEpoch)
				}
				if rp.Metadata != nil {
					c.metadata = *rp.Metadata
				}
				m.putOffset(fx, r.Group, topic.name, rp.Partition, c)
				n++
			}
		}
	}
	if n == 0 && !existed {
		delete(m.groups, r.Group) // nothing was committed: leave nothing behind
	}
	m.count(fx, m.inst.commits, n)
	fx.Reply(p, resp)
}

// validateCommit checks who commits. A commit without a member is for groups that assign by themselves; it makes the group
// where there is none. One by a member renews its session.
func (m *machine) validateCommit(fx *runtime.Effects, r *kmsg.OffsetCommitRequest) int16 {
	g := m.groups[r.Group]
	if g == nil {
		switch {
		case r.Generation < 0:
			m.create(fx, r.Group)
			return 0
		case r.Version >= commitGroupNotFound:
			return codeGroupNotFound
		}
		return codeIllegalGeneration
	}
	if r.Generation < 0 && g.state == stateEmpty {
		return 0
	}
	if r.Generation < 0 && r.MemberID == "" && r.InstanceID == nil {
		return codeUnknownMember // somebody's group
	}
	if code := g.validate(r.MemberID, r.InstanceID); code != 0 {
		return code
	}
	if r.Generation != g.generation {
		return codeIllegalGeneration
	}
	if g.state == stateCompleting {
		return codeRebalance
	}
	m.renew(fx, g, g.members[r.MemberID], g.members[r.MemberID].session)
	return 0
}

// unknownTopic is the error of a commit to a topic that is not there.
func unknownTopic(version int16) int16 {
	if version >= commitTopicIDs {
		return codeUnknownTopicID
	}
	return codeUnknownTopicOrPart
}

// commitResponse prepares the answer of an OffsetCommit and the topics that it means: partitions that cannot be committed
// whatever the group says have their error. any reports whether there are others.
func (c *Coordinator) commitResponse(r *kmsg.OffsetCommitRequest) (resp *kmsg.OffsetCommitResponse, topics []namedTopic, any bool) {
	resp = kmsg.NewPtrOffsetCommitResponse()
	resp.Version = r.Version
	for i := range r.Topics {
		t := &r.Topics[i]
		topic, known := c.opts.resolve(r.Version >= commitTopicIDs, t.Topic, t.TopicID)
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for j := range t.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition = t.Partitions[j].Partition
			switch {
			case !known:
				rp.ErrorCode = codeUnknownTopicID
			case len(topic.name) > maxNameBytes || !c.opts.PartitionExists(topic.name, rp.Partition):
				rp.ErrorCode = codeUnknownTopicOrPart
			default:
				any = true
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics, topics = append(resp.Topics, rt), append(topics, topic)
	}
	return resp, topics, any
}

// refuseCommit sets an error on all partitions that have none.
func refuseCommit(resp *kmsg.OffsetCommitResponse, code int16) *kmsg.OffsetCommitResponse {
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
				p.ErrorCode = code
			}
		}
	}
	return resp
}

// metadataTooLong applies offset.metadata.max.bytes, whatever it is set to within what a record can hold.
func metadataTooLong(s string, limit int) bool {
	return len(s) > math.MaxInt16 || (len(s) > limit && utf16Len(s) > limit)
}
