package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups (42), versions 0-2: coordinator/group. A group with members is 68, a missing one 69.
func handleDeleteGroups(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.DeleteGroups(ctx, r.client(), r.Request.(*kmsg.DeleteGroupsRequest))
	for i := range resp.Groups {
		r.note(resp.Groups[i].ErrorCode)
	}
	return resp, nil
}
