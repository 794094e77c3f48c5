package replica

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// session is the follower's side of an incremental fetch session (KIP-227): a request names only what differs from what the
// leader remembers.
//
// NB: the leader must count every request as a fetch of all partitions of the session, from the positions that it remembers.
type session struct {
	id    int32
	epoch int32 // of the next request; 0 asks for a new session
	sent  map[ID]sentPartition
}

// sentPartition is what the leader knows of a partition: what its next answer is to. Another follower of it is new to the leader even
// at the same position: an answer to that may have come, and was refused.
type sentPartition struct {
	position Position
	logStart base.Offset
	of       *Follower
}

// reset makes the next request a full one. The id stays: the leader closes the session that it names.
func (s *session) reset() { s.epoch, s.sent = 0, nil }

// void makes the next request name a partition, or forget it, whatever is fetched: its leader has answered with an error, and forgotten
// it, or with what was not taken, and waits to hear of that.
func (s *session) void(id ID) { s.sent[id] = sentPartition{} }

// request fills in the partitions to fetch. It notes them as sent: where no response follows, reset.
func (s *session) request(req *kmsg.FetchRequest, parts []*pulled, maxBytes int32) {
	req.SessionID, req.SessionEpoch = s.id, s.epoch
	old := s.sent
	s.sent = make(map[ID]sentPartition, len(parts))
	topics := map[base.TopicID]int{}
	for _, p := range parts {
		now := sentPartition{p.follower.Position(), p.follower.Log().LogStart, p.follower}
		s.sent[p.id] = now
		was, known := old[p.id]
		delete(old, p.id)
		if known && was == now {
			continue
		}
		i, ok := topics[p.id.Topic]
		if !ok {
			i = len(req.Topics)
			topics[p.id.Topic] = i
			t := kmsg.NewFetchRequestTopic()
			t.TopicID = p.id.Topic
			req.Topics = append(req.Topics, t)
		}
		out := kmsg.NewFetchRequestTopicPartition()
		out.Partition, out.PartitionMaxBytes = p.id.Partition, maxBytes
		out.CurrentLeaderEpoch, out.FetchOffset = int32(now.position.Epoch), int64(now.position.Offset)
		out.LastFetchedEpoch, out.LogStartOffset = int32(now.position.LastEpoch), int64(now.logStart)
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, out)
	}
	for id := range old { // what is left is fetched no more
		t := kmsg.NewFetchRequestForgottenTopic()
		t.TopicID, t.Partitions = id.Topic, []int32{id.Partition}
		req.ForgottenTopics = append(req.ForgottenTopics, t)
	}
}

// answered takes over the session that the leader granted; id 0 is none, and every request a full one.
func (s *session) answered(id int32) {
	switch {
	case id == 0:
		s.id = 0
		s.reset()
	case s.epoch == math.MaxInt32:
		s.epoch = 1
	default:
		s.id = id
		s.epoch++
	}
}
