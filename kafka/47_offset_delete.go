package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetDelete (47), version 0 (KIP-496): coordinator/group. A partition that the group still reads is 86.
func handleOffsetDelete(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.OffsetDelete(ctx, r.client(), r.Request.(*kmsg.OffsetDeleteRequest))
	r.note(resp.ErrorCode)
	return resp, nil
}
