package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// BrokerRegistration (62), version 0 (KIP-631). Between brokers only, so it is not advertised.
//
//   - Only the broker that is the controller answers; another one's answer is 41.
//   - 101 while another process lives under the node id, 104 where the cluster is another one, as Kafka.
//   - NB: no registration is made. A broker writes its own, into the metadata that all share; here it asks whether it may. So the
//     epoch of the answer is -1, and listeners, features, rack and incarnation are not looked at.
func handleBrokerRegistration(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.BrokerRegistrationRequest)
	resp := req.ResponseKind().(*kmsg.BrokerRegistrationResponse)
	resp.BrokerEpoch = -1
	switch {
	case s.opts.Controller == nil:
		resp.ErrorCode = r.code(kerr.NotController)
	case req.ClusterID != s.opts.Meta.Image().ClusterID():
		resp.ErrorCode = r.code(kerr.InconsistentClusterID)
	default:
		resp.ErrorCode = r.code(s.opts.Controller.MayRegister(base.BrokerID(req.BrokerID)))
	}
	return resp, nil
}

// MayRegister asks the controller whether a broker may register, until a deadline: kerr.DuplicateBrokerRegistration,
// kerr.InconsistentClusterID, kerr.NotController. After an error that is no *kerr.Error the peer is to be closed.
func (p *Peer) MayRegister(id base.BrokerID, clusterID string, deadline time.Time) error {
	req := kmsg.NewPtrBrokerRegistrationRequest()
	req.BrokerID, req.ClusterID = int32(id), clusterID
	answer, err := p.ask(req, deadline)
	if err != nil {
		return fmt.Errorf("ask to register: %w", err)
	}
	return kerr.ErrorForCode(answer.(*kmsg.BrokerRegistrationResponse).ErrorCode)
}
