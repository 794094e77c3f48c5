package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat (12), versions 0-4: coordinator/group.
func handleHeartbeat(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.Heartbeat(ctx, r.client(), r.Request.(*kmsg.HeartbeatRequest))
	r.note(resp.ErrorCode)
	return resp, nil
}
