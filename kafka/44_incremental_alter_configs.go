package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/metadata"
)

// IncrementalAlterConfigs (44), versions 0-1 (KIP-339): set, delete, append, subtract. A resource or a config that stands twice and
// broker loggers are 42; what the values must be is decided in metadata.
func handleIncrementalAlterConfigs(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.IncrementalAlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	ctx, cancel := s.requestTimeout(alterConfigsTimeoutMs)
	defer cancel()
	times := map[metadata.Resource]int{}
	for i := range req.Resources {
		times[metadata.Resource{Type: metadata.ResourceType(req.Resources[i].ResourceType), Name: req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		q := &req.Resources[i]
		res := metadata.Resource{Type: metadata.ResourceType(q.ResourceType), Name: q.ResourceName}
		err := s.alterable(ctx, res, times)
		ops := make([]metadata.ConfigOp, len(q.Configs))
		seen := map[string]bool{}
		for j, c := range q.Configs {
			if seen[c.Name] && err == nil {
				err = refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
			}
			seen[c.Name] = true
			ops[j] = metadata.ConfigOp{Name: c.Name, Op: int8(c.Op), Value: c.Value}
		}
		if err == nil {
			err = s.deps.meta.IncrementalAlterConfigs(ctx, res, ops, req.ValidateOnly)
		}
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = q.ResourceType, q.ResourceName
		out.ErrorCode, out.ErrorMessage = r.code(err), messageOf(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}
