package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Record types of __consumer_offsets that this coordinator reads and writes; FORMAT.md has the others.
const (
	keyOffset int16 = 1 // and 0, which Kafka wrote before 0.9
	keyGroup  int16 = 2

	offsetValueVersion        = 4 // what Kafka 4 writes; flexible, with the topic id as a tagged field
	offsetValueExpiresVersion = 1 // the only one with an expiry of its own (OffsetCommit 2 to 4)
	groupValueVersion         = 3
	maxValueVersion           = 4
)

// noTimestamp stands for a time that is not set.
const noTimestamp = -1

var errShort = errors.New("record ends early")

// recordKey is a parsed key; its slices point into the key.
type recordKey struct {
	kind      int16
	group     []byte
	topic     []byte
	partition int32
}

// parseKey reads the key of any record; of the types that are not ours only the type.
func parseKey(key []byte) (recordKey, error) {
	r := reader{b: key}
	k := recordKey{kind: r.int16()}
	if r.bad {
		return k, fmt.Errorf("key of %d bytes: %w", len(key), errShort)
	}
	switch k.kind {
	case 0, keyOffset:
		k.kind = keyOffset
		k.group, k.topic, k.partition = r.string(), r.string(), r.int32()
	case keyGroup:
		k.group = r.string()
	default:
		return k, nil
	}
	if r.bad {
		return k, fmt.Errorf("key of type %d: %w", k.kind, errShort)
	}
	return k, nil
}

func appendKeyString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// offsetRecordKey is the key of a committed offset.
func offsetRecordKey(group, topic string, partition int32) []byte {
	b := make([]byte, 0, 2+2+len(group)+2+len(topic)+4)
	b = binary.BigEndian.AppendUint16(b, uint16(keyOffset))
	b = appendKeyString(appendKeyString(b, group), topic)
	return binary.BigEndian.AppendUint32(b, uint32(partition))
}

// offsetRecord is the record of a committed offset.
func offsetRecord(group, topic string, partition int32, c committed) (key, value []byte) {
	v := kmsg.OffsetCommitValue{
		Version: offsetValueVersion, Offset: int64(c.offset), LeaderEpoch: int32(c.leaderEpoch), Metadata: c.metadata,
		CommitTimestamp: c.commitMs, TopicID: c.topicID,
	}
	if c.expireMs != noTimestamp {
		v.Version, v.ExpireTimestamp = offsetValueExpiresVersion, c.expireMs
	}
	return offsetRecordKey(group, topic, partition), v.AppendTo(nil)
}

// parseOffset reads the value of a committed offset, versions 0 to 4.
func parseOffset(value []byte) (committed, error) {
	if err := checkVersion(value); err != nil {
		return committed{}, err
	}
	var v kmsg.OffsetCommitValue
	if err := v.ReadFrom(value); err != nil {
		return committed{}, fmt.Errorf("offset commit value: %w", err)
	}
	c := committed{
		offset: base.Offset(v.Offset), leaderEpoch: base.NoLeaderEpoch, metadata: v.Metadata, commitMs: v.CommitTimestamp,
		expireMs: noTimestamp, topicID: v.TopicID,
	}
	if v.Version >= 3 {
		c.leaderEpoch = base.LeaderEpoch(v.LeaderEpoch)
	}
	if v.Version == offsetValueExpiresVersion {
		c.expireMs = v.ExpireTimestamp
	}
	return c, nil
}

// groupRecordKey is the key of a group's metadata.
func groupRecordKey(group string) []byte {
	b := make([]byte, 0, 2+2+len(group))
	b = binary.BigEndian.AppendUint16(b, uint16(keyGroup))
	return appendKeyString(b, group)
}

// groupRecord is the record of a group as it stands. With an assignment map, members get what it holds for them, which
// may be nothing; without one they keep what they have.
func groupRecord(g *classicGroup, assignment map[string][]byte) (key, value []byte) {
	v := kmsg.GroupMetadataValue{
		Version: groupValueVersion, ProtocolType: g.protocolType, Generation: g.generation, Protocol: g.protocol,
		Leader: nullable(g.leader), CurrentStateTimestamp: g.sinceMs,
	}
	for _, mem := range g.inOrder() {
		rm := kmsg.GroupMetadataValueMember{
			MemberID: mem.id, InstanceID: mem.instanceID, ClientID: mem.client.ID, ClientHost: mem.client.Host,
			RebalanceTimeoutMillis: int32(mem.rebalance.Milliseconds()), SessionTimeoutMillis: int32(mem.session.Milliseconds()),
			Subscription: mem.metadata(g.protocol), Assignment: mem.assignment,
		}
		if assignment != nil {
			rm.Assignment = assignment[mem.id]
		}
		v.Members = append(v.Members, rm)
	}
	return groupRecordKey(g.id), v.AppendTo(nil)
}

// parseGroup makes a group of its record, versions 0 to 4. A group with members is stable: a record is only written then.
func parseGroup(id string, value []byte) (*classicGroup, error) {
	if err := checkVersion(value); err != nil {
		return nil, err
	}
	var v kmsg.GroupMetadataValue
	if err := v.ReadFrom(value); err != nil {
		return nil, fmt.Errorf("group metadata value: %w", err)
	}
	g := newClassicGroup(id, noTimestamp)
	if v.Version >= 2 {
		g.sinceMs = v.CurrentStateTimestamp
	}
	g.generation, g.protocolType, g.protocol = v.Generation, v.ProtocolType, v.Protocol
	for i := range v.Members {
		rm := &v.Members[i]
		if g.members[rm.MemberID] != nil {
			return nil, fmt.Errorf("group metadata value: member %q twice", rm.MemberID)
		}
		mem := &member{
			id: rm.MemberID, instanceID: rm.InstanceID, client: Client{ID: rm.ClientID, Host: rm.ClientHost},
			rebalance: millis(rm.RebalanceTimeoutMillis), session: millis(rm.SessionTimeoutMillis),
			assignment: slices.Clone(rm.Assignment),
		}
		if v.Version < 1 || rm.RebalanceTimeoutMillis == -1 {
			mem.rebalance = mem.session
		}
		if v.Protocol != nil {
			mem.protocols = []kmsg.JoinGroupRequestProtocol{{Name: *v.Protocol, Metadata: slices.Clone(rm.Subscription)}}
		}
		g.add(mem, waiting{})
	}
	g.leader = ""
	if v.Leader != nil {
		g.leader = *v.Leader
	}
	if len(g.members) > 0 {
		g.state = stateStable
	}
	g.readSubscriptions()
	return g, nil
}

func checkVersion(value []byte) error {
	if len(value) < 2 {
		return fmt.Errorf("value of %d bytes: %w", len(value), errShort)
	}
	if v := int16(binary.BigEndian.Uint16(value)); v < 0 || v > maxValueVersion {
		return fmt.Errorf("value of version %d, known are 0 to %d", v, maxValueVersion)
	}
	return nil
}

// replayMarker ends a transaction: what it committed becomes visible, or is forgotten (KIP-98).
func (m *machine) replayMarker(b record.Batch) error {
	var bad error
	err := b.Each(func(r record.Record) bool {
		k := reader{b: r.Key} // control record key: version int16, type int16 (0 abort, 1 commit)
		k.int16()
		kind := k.int16()
		if k.bad {
			bad = base.MarkCorruption(fmt.Errorf("control record at offset %d: %w", r.Offset, errShort))
			return false
		}
		m.open.end(b.ProducerID(), kind == 1, m.offsets)
		return true
	})
	if err != nil {
		return fmt.Errorf("control batch at offset %d of partition %d: %w", b.BaseOffset(), m.partition, err)
	}
	return bad
}
