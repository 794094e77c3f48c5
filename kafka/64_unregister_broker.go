package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// UnregisterBroker (64), version 0 (KIP-631): a broker that is gone for good is forgotten, whatever replicas it holds.
//
//   - One that is not registered is 102.
//   - Unlike Kafka, one that serves is 42. Kafka takes it out of the cluster while it runs, where it stays until it is started
//     again; ours would come back as a broker with another disk, and so lose what only it has.
func handleUnregisterBroker(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.UnregisterBrokerRequest)
	resp := req.ResponseKind().(*kmsg.UnregisterBrokerResponse)
	resp.ErrorMessage = text("") // the default of the schema, as Kafka sends it
	ctx, cancel := s.requestTimeout(0)
	defer cancel()
	if err := s.deps.meta.UnregisterBroker(ctx, base.BrokerID(req.BrokerID)); err != nil {
		resp.ErrorCode, resp.ErrorMessage = r.code(err), messageOf(err)
	}
	return resp, nil
}
