package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// CreatePartitions (37), versions 0-3 (KIP-195). A count that is not larger than the current one is 37; a topic that stands twice is
// 42; a null assignment lets the controller place.
func handleCreatePartitions(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	ctx, cancel := s.requestTimeout(req.TimeoutMillis)
	defer cancel()
	times := map[string]int{}
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		if times[t.Topic] == 0 {
			continue // a duplicate that was answered
		}
		var err error
		if times[t.Topic] > 1 {
			err = refuse(kerr.InvalidRequest, "Duplicate topic in request.")
			times[t.Topic] = 0
		} else {
			var assignment [][]base.BrokerID
			for _, a := range t.Assignment {
				assignment = append(assignment, toBrokerIDs(a.Replicas))
			}
			s.meet(ctx, t.Topic)
			err = s.deps.meta.CreatePartitions(ctx, t.Topic, t.Count, assignment, req.ValidateOnly)
		}
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic, out.ErrorCode, out.ErrorMessage = t.Topic, r.code(err), messageOf(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}
