package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata/controller"
)

// Controller takes the heartbeats of brokers, and knows who lives; metadata/controller/run does.
type Controller interface {
	// Heartbeat prolongs a broker's session: kerr.NotController, kerr.StaleBrokerEpoch, kerr.BrokerIDNotRegistered.
	Heartbeat(h controller.Heartbeat) (fenced, mayStop bool, err error)
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

// BrokerHeartbeat (63), versions 0-1 (KIP-631). Between brokers only, so it is not advertised.
//
//   - Only the broker that is the controller answers; another one's answer is 41. 77 and 102 as Kafka: a registration that is
//     not the current one, or is not known here yet.
//   - The end of the connection is told to the controller: a broker that died is fenced at once, not after its session.
//   - An offline directory (v1, KIP-858) says that the broker's disk is full: it keeps no leadership that another can take, and no
//     place in an ISR that has enough others.
//   - The metadata offset is not looked at.
func handleBrokerHeartbeat(s *Server, _ context.Context, r *request) (kmsg.Response, error) {
	req := r.Request.(*kmsg.BrokerHeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.BrokerHeartbeatResponse)
	if s.opts.Controller == nil {
		resp.ErrorCode = r.code(kerr.NotController)
		return resp, nil
	}
	h := controller.Heartbeat{
		ID: base.BrokerID(req.BrokerID), Epoch: req.BrokerEpoch, Leaving: req.WantShutdown, Full: len(req.OfflineLogDirs) > 0,
	}
	fenced, mayStop, err := s.opts.Controller.Heartbeat(h)
	if resp.ErrorCode = r.code(err); err == nil {
		resp.IsCaughtUp, resp.IsFenced, resp.ShouldShutdown = true, fenced, mayStop
		r.conn.mu.Lock()
		r.conn.mu.heartbeat = &heartbeatOf{h.ID, h.Epoch}
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
