package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/metadata"
)

// ListConfigResources (74), versions 0-1 (KIP-1142). v0 lists client metrics only, of which there are none. v1 lists the asked types,
// or all; a type that we do not know is 35.
func handleListConfigResources(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.ListConfigResourcesRequest)
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	if req.Version == 0 {
		return resp, nil
	}
	types := req.ResourceTypes
	if len(types) == 0 {
		for _, t := range configResourceTypes {
			types = append(types, int8(t))
		}
	}
	img := s.deps.meta.Image()
	add := func(kind int8, name string) {
		c := kmsg.NewListConfigResourcesResponseConfigResource()
		c.Type, c.Name = kind, name
		resp.ConfigResources = append(resp.ConfigResources, c)
	}
	for i, kind := range types {
		if slices.Contains(types[:i], kind) {
			continue
		}
		switch metadata.ResourceType(kind) {
		case metadata.ResourceTopic:
			for _, t := range img.Topics() {
				add(kind, t.Name)
			}
		case metadata.ResourceBroker, metadata.ResourceBrokerLogger:
			for _, b := range s.brokers(img) {
				add(kind, itoa(int32(b.ID)))
			}
		case metadata.ResourceClientMetrics, metadata.ResourceGroup:
		default:
			resp.ConfigResources = nil
			resp.ErrorCode = r.code(kerr.UnsupportedVersion)
			return resp, nil
		}
	}
	return resp, nil
}

// configResourceTypes are the types that have configs.
var configResourceTypes = []metadata.ResourceType{metadata.ResourceTopic, metadata.ResourceBroker, metadata.ResourceBrokerLogger,
	metadata.ResourceClientMetrics, metadata.ResourceGroup}
