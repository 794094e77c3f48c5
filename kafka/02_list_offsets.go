package kafka

import (
	"context"
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
	for i := range req.Topics {
		t := &req.Topics[i]
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			op := kmsg.NewListOffsetsResponseTopicPartition()
			op.Partition, op.Timestamp, op.Offset, op.LeaderEpoch = p.Partition, -1, -1, -1
			tp := base.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			switch {
			case twice[tp] > 1:
				op.ErrorCode = r.code(kerr.InvalidRequest)
			case p.Timestamp < 0 && req.Version < specialTimestampSince(p.Timestamp):
				op.ErrorCode = r.code(kerr.UnsupportedVersion)
			default:
				res, err := s.deps.fetch.ListOffset(ctx, tp, base.LeaderEpoch(p.CurrentLeaderEpoch), p.Timestamp, req.IsolationLevel == 1)
				if err != nil {
					op.ErrorCode = r.code(err)
					break
				}
				op.Timestamp, op.Offset, op.LeaderEpoch = res.Timestamp, int64(res.Offset), int32(res.LeaderEpoch)
			}
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

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
