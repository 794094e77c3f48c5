package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// followerBytes is what a follower may read of whatever it asks for, though slow consumers hold all fetch memory: else they could put
// every follower out of its ISR. A broker has one stream to another, so what this adds to the memory is bounded by their number, and so
// is that a follower's bytes are counted once they are read.
const followerBytes = 1 << 20

// fetchFollower answers a broker that replicates from this one.
func (s *Server) fetchFollower(ctx context.Context, r *request, req *kmsg.FetchRequest, resp *fetchResponse) *fetchResponse {
	fr := &fetch.FollowerRequest{
		Follower: base.BrokerID(req.ReplicaState.ID), BrokerEpoch: req.ReplicaState.Epoch,
		SessionID: req.SessionID, SessionEpoch: req.SessionEpoch,
		NewSession: int32(s.opts.Rand() & math.MaxInt32),
		MaxWaitMs:  req.MaxWaitMillis, MinBytes: req.MinBytes,
		MaxBytes: int32(max(s.fetched.room(s.fetched.used.Load(), int64(req.MaxBytes)), int64(min(req.MaxBytes, followerBytes)))),
	}
	if !r.parked {
		fr.MaxWaitMs = 0
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			fr.Partitions = append(fr.Partitions, fetch.FollowerPartition{
				FollowerKey:  fetch.FollowerKey{Topic: base.TopicID(t.TopicID), Partition: p.Partition},
				Offset:       base.Offset(p.FetchOffset),
				CurrentEpoch: base.LeaderEpoch(p.CurrentLeaderEpoch),
				LastEpoch:    base.LeaderEpoch(p.LastFetchedEpoch),
				LogStart:     base.Offset(p.LogStartOffset),
				MaxBytes:     p.PartitionMaxBytes,
			})
		}
	}
	for i := range req.ForgottenTopics {
		t := &req.ForgottenTopics[i]
		for _, n := range t.Partitions {
			fr.Forgotten = append(fr.Forgotten, fetch.FollowerKey{Topic: base.TopicID(t.TopicID), Partition: n})
		}
	}
	session, results, err := s.deps.fetch.FetchFollower(ctx, fr)
	if err != nil {
		resp.ErrorCode = r.code(err)
		return resp
	}
	resp.SessionID = session
	bytes := 0
	for i := range results {
		resp.addFollower(r, &results[i])
		bytes += results[i].Bytes
	}
	r.fetched.Keep(bytes)
	return resp
}

func (f *fetchResponse) addFollower(r *request, res *fetch.FollowerResponse) {
	if n := len(f.Topics); n == 0 || f.Topics[n-1].TopicID != res.Topic {
		t := kmsg.NewFetchResponseTopic()
		t.TopicID = res.Topic
		f.Topics = append(f.Topics, t)
		f.batches = append(f.batches, [][]record.Batch(nil))
	}
	n := len(f.Topics) - 1
	out := kmsg.NewFetchResponseTopicPartition()
	out.Partition, out.PreferredReadReplica = res.Partition, -1
	out.ErrorCode = r.code(res.Err)
	out.HighWatermark, out.LastStableOffset, out.LogStartOffset = int64(res.HighWatermark), int64(res.HighWatermark), int64(res.LogStart)
	if res.Diverging != nil {
		out.DivergingEpoch.Epoch, out.DivergingEpoch.EndOffset = int32(res.Diverging.Epoch), int64(res.Diverging.Start)
	}
	f.Topics[n].Partitions = append(f.Topics[n].Partitions, out)
	f.batches[n] = append(f.batches[n], res.Batches)
}
