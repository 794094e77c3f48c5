package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/base"
)

// Fetch (1), versions 4-18.
//
//   - Sessions (KIP-227) from v7: session.go. Errors 70, 71 and 106 are top-level, without topics.
//   - v13 names topics by id; one that is unknown is 100 for each of its partitions and stays in the session.
//   - Consumers may read from followers (KIP-392): v11 and later are served by any replica, and told the one in their rack where
//     replica.selector.class is the RackAwareReplicaSelector.
//   - The bytes that a Fetch may return are bounded by fetch.max.bytes and by what Limits.FetchMemoryBytes has left when they are
//     read; a Fetch that waits has of them what it has read.
//   - Brokers (replica id >= 0) follow with v15 and later, in sessions of their own: package fetch, FetchFollower. Older versions
//     are refused with 9.
//
// v5 LogStartOffset; v9 CurrentLeaderEpoch; v10 zstd; v11 rack; v12 LastFetchedEpoch, DivergingEpoch, CurrentLeader on 6 and
// 74; v16 NodeEndpoints (KIP-951). v17 and v18 add follower fields only.
func handleFetch(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.FetchRequest)
	resp := &fetchResponse{FetchResponse: *kmsg.NewPtrFetchResponse()}
	resp.Version = req.Version
	if req.ReplicaState.ID >= 0 && req.Version >= 15 {
		return s.fetchFollower(ctx, r, req, resp), nil
	}
	fc, err := s.sessions.begin(req)
	if err != nil {
		resp.ErrorCode = r.code(err)
		return resp, nil
	}
	img := s.deps.meta.Image()
	fr := &fetch.Request{
		MaxWaitMs:     req.MaxWaitMillis,
		MinBytes:      req.MinBytes,
		MaxBytes:      min(req.MaxBytes, s.opts.Limits.FetchMaxBytes),
		Memory:        &r.fetched,
		ReadCommitted: req.IsolationLevel == 1,
		NoZstd:        req.Version < 10,
		Follower:      req.Version >= 11,
		Rack:          req.Rack,
		Partitions:    make([]fetch.PartitionRequest, len(fc.parts)),
	}
	fr.MinBytes = min(fr.MinBytes, max(fr.MaxBytes, 1)) // at least 1: a poll that finds nothing waits
	if !r.parked {
		fr.MaxWaitMs = 0
	}
	follower := req.ReplicaID >= 0 && req.Version < 15
	for i, p := range fc.parts {
		fr.Partitions[i] = s.fetchPartition(img, req.Version, p)
		if follower {
			fr.Partitions[i].Err = kerr.ReplicaNotAvailable
		}
	}
	results := s.deps.fetch.Fetch(ctx, fr)
	resp.SessionID = fc.finish(results)
	s.fillFetch(r, resp, fc, results)
	return resp, nil
}

// fetchPartition turns a session's partition into what the read path takes.
func (s *Server) fetchPartition(img image, version int16, p *sessionPartition) fetch.PartitionRequest {
	out := fetch.PartitionRequest{
		TP:               base.TopicPartition{Topic: p.topic, Partition: p.partition},
		TopicID:          p.id,
		Offset:           p.offset,
		MaxBytes:         p.maxBytes,
		CurrentEpoch:     p.currentEpoch,
		LastFetchedEpoch: p.lastFetchedEpoch,
	}
	if version >= 13 {
		if t, ok := img.TopicByID(p.id); ok {
			out.TP.Topic = t.Name
		} else {
			out.Err = kerr.UnknownTopicID
		}
	}
	return out
}

// fillFetch builds the topics of the response. Partitions of one topic that follow each other share an entry.
func (s *Server) fillFetch(r *request, resp *fetchResponse, fc *fetchContext, results []fetch.PartitionResponse) {
	for i, p := range fc.parts {
		res := &results[i]
		if !fc.included[i] {
			continue
		}
		if n := len(resp.Topics); n == 0 || !p.sameTopic(resp.Topics[n-1].Topic, resp.Topics[n-1].TopicID, resp.Version) {
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = p.topic, p.id
			resp.Topics = append(resp.Topics, t)
			resp.batches = append(resp.batches, nil)
		}
		n := len(resp.Topics) - 1
		out := kmsg.NewFetchResponseTopicPartition()
		out.Partition = p.partition
		out.PreferredReadReplica = int32(res.Preferred)
		out.HighWatermark = -1
		if res.Err != nil {
			out.ErrorCode = r.code(res.Err)
			s.leaderOfFetch(resp, &out, p)
		} else {
			out.HighWatermark, out.LastStableOffset, out.LogStartOffset = int64(res.HighWatermark), int64(res.LastStable), int64(res.LogStart)
		}
		if res.Diverging != nil {
			out.DivergingEpoch.Epoch, out.DivergingEpoch.EndOffset = int32(res.Diverging.Epoch), int64(res.Diverging.Start)
		}
		switch {
		case res.Err != nil:
			// Kafka's answers for what it does not host have an empty list, its other errors none.
			if out.ErrorCode == kerr.UnknownTopicOrPartition.Code || out.ErrorCode == kerr.UnknownTopicID.Code {
				out.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
			}
		case res.Aborted != nil:
			out.AbortedTransactions = make([]kmsg.FetchResponseTopicPartitionAbortedTransaction, len(res.Aborted))
			for k, a := range res.Aborted {
				out.AbortedTransactions[k].ProducerID, out.AbortedTransactions[k].FirstOffset = int64(a.ProducerID), int64(a.FirstOffset)
			}
		}
		resp.Topics[n].Partitions = append(resp.Topics[n].Partitions, out)
		resp.batches[n] = append(resp.batches[n], res.Batches)
	}
}

// leaderOfFetch fills CurrentLeader and NodeEndpoints on errors 6 and 74 (KIP-951).
func (s *Server) leaderOfFetch(resp *fetchResponse, out *kmsg.FetchResponseTopicPartition, p *sessionPartition) {
	if resp.Version < 12 || (out.ErrorCode != kerr.NotLeaderForPartition.Code && out.ErrorCode != kerr.FencedLeaderEpoch.Code) {
		return
	}
	tp := base.TopicPartition{Topic: p.topic, Partition: p.partition}
	if resp.Version >= 13 {
		if t, ok := s.deps.meta.Image().TopicByID(p.id); ok {
			tp.Topic = t.Name
		}
	}
	s.nameLeader(tp, func(b metadataBroker, leader base.BrokerID, epoch base.LeaderEpoch) {
		out.CurrentLeader.LeaderID, out.CurrentLeader.LeaderEpoch = int32(leader), int32(epoch)
		if resp.Version < 16 {
			return
		}
		for i := range resp.Brokers {
			if resp.Brokers[i].NodeID == int32(b.ID) {
				return
			}
		}
		nb := kmsg.NewFetchResponseBroker()
		nb.NodeID, nb.Host, nb.Port, nb.Rack = int32(b.ID), b.Host, b.Port, b.Rack
		resp.Brokers = append(resp.Brokers, nb)
	})
}
