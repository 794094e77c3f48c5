package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// DeleteRecords (21), versions 0-2.
//
//   - Offset -1 means the high watermark; an offset below the log start changes nothing and succeeds; one above the high watermark
//     or below -1 is 1.
//   - Internal topics are 17, topics that are only compacted 44.
//   - The answer waits until the logs of all live replicas start there: 7 with the low watermark so far where the time-out passes
//     first, though the records are gone for consumers already.
func handleDeleteRecords(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(req.TimeoutMillis)*time.Millisecond)
	defer cancel()
	img := s.deps.meta.Image()
	await := s.deleteRecords(img, req)
	for i := range req.Topics {
		t := &req.Topics[i]
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			op := kmsg.NewDeleteRecordsResponseTopicPartition()
			op.Partition = p.Partition
			low, err := await[0](ctx)
			await = await[1:]
			op.LowWatermark, op.ErrorCode = int64(low), r.code(err)
			out.Partitions = append(out.Partitions, op)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// deleteRecords moves the log starts of all partitions; what it returns, in their order, waits for the replicas.
func (s *Server) deleteRecords(img image, req *kmsg.DeleteRecordsRequest) (await []func(context.Context) (base.Offset, error)) {
	for i := range req.Topics {
		t := &req.Topics[i]
		refused := recordsUndeletable(img, t.Topic)
		for _, p := range t.Partitions {
			tp := base.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			goal, err := base.NoOffset, refused
			if err == nil {
				goal, err = s.deps.ingest.DeleteRecords(tp, base.Offset(p.Offset))
			}
			await = append(await, func(ctx context.Context) (base.Offset, error) {
				if err != nil {
					return base.NoOffset, err
				}
				return s.deps.ingest.AwaitLowWatermark(ctx, tp, goal)
			})
		}
	}
	return await
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
