package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeGroups (15), versions 0-6: coordinator/group. An unknown group is Dead without an error up to v5 and 69 in v6
// (KIP-1043). v3 shows authorised operations where asked for.
func handleDescribeGroups(s *Server, ctx context.Context, r *request) (kmsg.Response, error) {
	resp := s.deps.groups.DescribeGroups(ctx, r.client(), r.Request.(*kmsg.DescribeGroupsRequest))
	include := r.Request.(*kmsg.DescribeGroupsRequest).IncludeAuthorizedOperations
	for i := range resp.Groups {
		g := &resp.Groups[i]
		r.note(g.ErrorCode)
		g.AuthorizedOperations = noOperations
		if include && g.ErrorCode == 0 {
			g.AuthorizedOperations = groupOperations
		}
	}
	return resp, nil
}
