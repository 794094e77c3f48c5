package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SyncGroup (14), versions 0-5: coordinator/group. It waits for the leader's assignment.
func handleSyncGroup(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.SyncGroup(ctx, r.client(), r.Request.(*kmsg.SyncGroupRequest))
	r.note(resp.ErrorCode)
	return resp, nil
}
