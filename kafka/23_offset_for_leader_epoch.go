package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// OffsetForLeaderEpoch (23), versions 2-4 (KIP-101, KIP-320).
//
// The end offset of an epoch, or -1 and -1 where it is unknown. CurrentLeaderEpoch is checked: 74 where ours is newer, 75 where
// it is older.
func handleOffsetForLeaderEpoch(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for i := range req.Topics {
		t := &req.Topics[i]
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			op := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			op.Partition, op.LeaderEpoch, op.EndOffset = p.Partition, -1, -1
			epoch, end, err := s.deps.ingest.EpochEnd(ctx, base.TopicPartition{Topic: t.Topic, Partition: p.Partition},
				base.LeaderEpoch(p.CurrentLeaderEpoch), base.LeaderEpoch(p.LeaderEpoch))
			if err != nil {
				op.ErrorCode = r.code(err)
			} else {
				op.LeaderEpoch, op.EndOffset = int32(epoch), int64(end)
			}
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}
