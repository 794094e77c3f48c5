package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/metadata"
)

// AlterConfigs (33), versions 0-2: the given set replaces all that is set on the resource (old clients). A resource that stands twice,
// a config that stands twice and broker loggers are 42.
func handleAlterConfigs(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.AlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
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
		configs := map[string]*string{}
		for _, c := range q.Configs {
			if _, dup := configs[c.Name]; dup && err == nil {
				err = refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
			}
			configs[c.Name] = c.Value
		}
		if err == nil {
			err = s.deps.meta.ReplaceConfigs(ctx, res, configs, req.ValidateOnly)
		}
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = q.ResourceType, q.ResourceName
		out.ErrorCode, out.ErrorMessage = r.code(err), messageOf(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

// alterConfigsTimeoutMs bounds config changes, whose requests name no timeout.
const alterConfigsTimeoutMs = 30_000

// alterable refuses resources that cannot be altered here.
func (s *Server) alterable(ctx context.Context, res metadata.Resource, times map[metadata.Resource]int) error {
	switch {
	case times[res] > 1:
		return refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
	case res.Type == metadata.ResourceBrokerLogger:
		return refuse(kerr.InvalidRequest, "Broker loggers cannot be changed on this broker.")
	case !slices.Contains(configResourceTypes, res.Type):
		return refuse(kerr.InvalidRequest, "Unknown resource type "+itoa(int32(res.Type)))
	}
	if res.Type == metadata.ResourceTopic && !invalidTopicName(res.Name) {
		s.meet(ctx, res.Name)
		if _, ok := s.deps.meta.Image().Topic(res.Name); !ok {
			return refuse(kerr.UnknownTopicOrPartition, "The topic '"+res.Name+"' does not exist.")
		}
	}
	return s.wrongBroker(res, false)
}
