package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// DeleteRecords (21), versions 0-2.
//
//   - Offset -1 means the high watermark; an offset below the log start changes nothing and succeeds; one above the high watermark
//     or below -1 is 1.
//   - Internal topics are 17, topics that are only compacted 44.
func handleDeleteRecords(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	ctx, cancel := s.requestTimeout(req.TimeoutMillis)
	defer cancel()
	img := s.deps.meta.Image()
	for i := range req.Topics {
		t := &req.Topics[i]
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = t.Topic
		refused := recordsUndeletable(img, t.Topic)
		for _, p := range t.Partitions {
			op := kmsg.NewDeleteRecordsResponseTopicPartition()
			op.Partition, op.LowWatermark = p.Partition, -1
			err := refused
			if err == nil {
				var low base.Offset
				low, err = s.deps.ingest.DeleteRecords(ctx, base.TopicPartition{Topic: t.Topic, Partition: p.Partition}, base.Offset(p.Offset))
				if err == nil {
					op.LowWatermark = int64(low)
				}
			}
			op.ErrorCode = r.code(err)
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func recordsUndeletable(img image, name string) error {
	topic, ok := img.Topic(name)
	switch {
	case internalTopic(name) || (ok && topic.Internal):
		return kerr.InvalidTopicException
	case !ok:
		return kerr.UnknownTopicOrPartition
	case topic.Config != nil && !topic.Config.Delete:
		return kerr.PolicyViolation
	}
	return nil
}
