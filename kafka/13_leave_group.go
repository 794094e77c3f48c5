package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// LeaveGroup (13), versions 0-5: coordinator/group. v3 takes many members (KIP-345).
func handleLeaveGroup(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.LeaveGroup(ctx, r.client(), r.Request.(*kmsg.LeaveGroupRequest))
	r.note(resp.ErrorCode)
	return resp, nil
}
