package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// Controller takes the heartbeats of brokers, and knows who lives; metadata/controller/run does.
type Controller interface {
	// Heartbeat prolongs a broker's session: kerr.NotController, kerr.StaleBrokerEpoch, kerr.BrokerIDNotRegistered.
	Heartbeat(id base.BrokerID, epoch int64, leaving bool) (fenced, mayStop bool, err error)
	// MayRegister tells whether a process may register under a node id: kerr.NotController, kerr.DuplicateBrokerRegistration.
	MayRegister(id base.BrokerID) error
	// Disconnected says that the connection of a broker's heartbeats ended.
	Disconnected(id base.BrokerID, epoch int64)
}

// heartbeatOf is the broker that sends heartbeats over a connection.
type heartbeatOf struct {
	id    base.BrokerID
	epoch int64
}

// BrokerHeartbeat (63), version 0 (KIP-631). Between brokers only, so it is not advertised.
//
//   - Only the broker that is the controller answers; another one's answer is 41. 77 and 102 as Kafka: a registration that is
//     not the current one, or is not known here yet.
//   - The end of the connection is told to the controller: a broker that died is fenced at once, not after its session.
//   - Offline and cordoned directories and the metadata offset are not looked at.
func handleBrokerHeartbeat(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.BrokerHeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.BrokerHeartbeatResponse)
	if s.opts.Controller == nil {
		resp.ErrorCode = r.code(kerr.NotController)
		return resp, nil
	}
	id := base.BrokerID(req.BrokerID)
	fenced, mayStop, err := s.opts.Controller.Heartbeat(id, req.BrokerEpoch, req.WantShutdown)
	if resp.ErrorCode = r.code(err); err == nil {
		resp.IsCaughtUp, resp.IsFenced, resp.ShouldShutdown = true, fenced, mayStop
		r.conn.mu.Lock()
		r.conn.mu.heartbeat = &heartbeatOf{id, req.BrokerEpoch}
		r.conn.mu.Unlock()
	}
	return resp, nil
}

// heartbeatEnded tells the controller that a connection is over, if it was a broker's.
func (c *conn) heartbeatEnded() {
	c.mu.Lock()
	h := c.mu.heartbeat
	c.mu.Unlock()
	if h != nil {
		c.s.opts.Controller.Disconnected(h.id, h.epoch)
	}
}
