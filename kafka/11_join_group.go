package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// JoinGroup (11), versions 0-9: coordinator/group. It waits until the rebalance is over, or the connection is gone.
func handleJoinGroup(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.JoinGroup(ctx, r.client(), r.Request.(*kmsg.JoinGroupRequest))
	r.note(resp.ErrorCode)
	return resp, nil
}
