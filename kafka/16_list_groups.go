package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups (16), versions 0-5: coordinator/group. v4 filters by state, v5 by type.
func handleListGroups(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.ListGroups(ctx, r.client(), r.Request.(*kmsg.ListGroupsRequest))
	r.note(resp.ErrorCode)
	return resp, nil
}
