package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster (60), versions 0-2 (KIP-700). v1: an endpoint type other than brokers is 114 (KIP-919); v2: fenced brokers,
// where the request asks for them (KIP-1073). The controller is any broker that takes admin requests.
func handleDescribeCluster(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.ControllerID, resp.ClusterAuthorizedOperations, resp.EndpointType = -1, noOperations, endpointBroker
	if req.Version >= 1 && req.EndpointType != endpointBroker {
		err := refuse(kerr.UnsupportedEndpointType, "Unsupported endpoint type "+itoa(int32(req.EndpointType)))
		if req.EndpointType == endpointController {
			err = refuse(kerr.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
		}
		resp.ErrorCode, resp.ErrorMessage = r.code(err), messageOf(err)
		return resp, nil
	}
	img := s.deps.meta.Image()
	resp.ClusterID, resp.ControllerID = img.ClusterID(), int32(s.controller(img))
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	brokers := s.brokers(img)
	if req.IncludeFencedBrokers {
		brokers = img.AllBrokers()
	}
	for _, b := range brokers {
		nb := kmsg.NewDescribeClusterResponseBroker()
		nb.NodeID, nb.Host, nb.Port, nb.Rack, nb.IsFenced = int32(b.ID), b.Host, b.Port, b.Rack, b.Fenced
		resp.Brokers = append(resp.Brokers, nb)
	}
	return resp, nil
}

// Endpoint types of DescribeCluster.
const (
	endpointBroker     = 1
	endpointController = 2
)
