package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// ListOffsets (2), versions 1-11.
//
//   - -1 latest, -2 earliest; -3 max timestamp from v7 (KIP-734), -4 earliest local from v8 (KIP-405), -5 latest tiered from v9
//     (KIP-1005), -6 earliest pending upload from v11 (KIP-1023); an older version or another negative time is 35 for the partition.
//   - A partition that is named twice is 42, each time.
//   - v10 has a timeout (KIP-1075); what is not found in time is 7.
func handleListOffsets(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.ListOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	if req.Version >= 10 && req.TimeoutMillis > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.TimeoutMillis)*time.Millisecond)
		defer cancel()
	}
	twice := map[base.TopicPartition]int{}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			twice[base.TopicPartition{Topic: t.Topic, Partition: p.Partition}]++
		}
	}
	var searches []offsetSearch
	for i := range req.Topics {
		t := &req.Topics[i]
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = t.Topic
		out.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			op := &out.Partitions[j]
			*op = kmsg.NewListOffsetsResponseTopicPartition()
			op.Partition, op.Timestamp, op.Offset, op.LeaderEpoch = p.Partition, -1, -1, -1
			tp := base.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			switch {
			case twice[tp] > 1:
				op.ErrorCode = r.code(kerr.InvalidRequest)
			case p.Timestamp < 0 && req.Version < specialTimestampSince(p.Timestamp):
				op.ErrorCode = r.code(kerr.UnsupportedVersion)
			default:
				searches = append(searches, offsetSearch{tp: tp, epoch: base.LeaderEpoch(p.CurrentLeaderEpoch), timestamp: p.Timestamp, out: op})
			}
		}
		resp.Topics = append(resp.Topics, out)
	}
	s.searchOffsets(ctx, searches, req.IsolationLevel == 1)
	for i := range searches {
		if err := searches[i].err; err != nil {
			searches[i].out.ErrorCode = r.code(err)
		}
	}
	return resp, nil
}

// offsetSearch is one partition to look up.
type offsetSearch struct {
	tp        base.TopicPartition
	epoch     base.LeaderEpoch
	timestamp int64
	out       *kmsg.ListOffsetsResponseTopicPartition
	err       error
}

func (q *offsetSearch) run(ctx context.Context, f reader, readCommitted bool) {
	res, err := f.ListOffset(ctx, q.tp, q.epoch, q.timestamp, readCommitted)
	if err != nil {
		q.err = err
		return
	}
	q.out.Timestamp, q.out.Offset, q.out.LeaderEpoch = res.Timestamp, int64(res.Offset), int32(res.LeaderEpoch)
}

// offsetSearchers is how many searches of one request run at a time: each may have to read an index from the bucket.
const offsetSearchers = 16

// searchOffsets looks all partitions up. Only times need a search; the other answers are in memory.
func (s *Server) searchOffsets(ctx context.Context, searches []offsetSearch, readCommitted bool) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, offsetSearchers)
	for i := range searches {
		q := &searches[i]
		if len(searches) == 1 || (q.timestamp < 0 && q.timestamp != maxTimestamp) {
			q.run(ctx, s.deps.fetch, readCommitted)
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		started := s.goroot.Go(func(context.Context) {
			defer func() { <-slots; wg.Done() }()
			defer s.caught("ListOffsets", &q.err)
			q.run(ctx, s.deps.fetch, readCommitted)
		})
		if !started {
			q.err = kerr.NotLeaderForPartition
			<-slots
			wg.Done()
		}
	}
	wg.Wait()
}

// maxTimestamp asks for the record with the largest timestamp (KIP-734).
const maxTimestamp = -3

// specialTimestampSince is the first version in which a negative timestamp has a meaning.
func specialTimestampSince(timestamp int64) int16 {
	switch timestamp {
	case -1, -2:
		return 1
	case -3:
		return 7
	case -4:
		return 8
	case -5:
		return 9
	case -6:
		return 11
	default:
		return 1<<15 - 1
	}
}
