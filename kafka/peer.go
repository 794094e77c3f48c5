package kafka

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/metadata/controller"
)

// peerResponseBytes bounds what another broker may answer: the sizes of half a million replicas, some twenty bytes each.
const peerResponseBytes = 16 << 20

// Peer is this broker's side of a connection to another one. It belongs to one goroutine.
type Peer struct {
	conn   net.Conn
	format *kmsg.RequestFormatter
	corr   int32
}

// NewPeer takes over a connection that is ready for requests.
func NewPeer(conn net.Conn, clientID string) *Peer {
	return &Peer{conn: conn, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))}
}

// Close ends the connection.
func (p *Peer) Close() { _ = p.conn.Close() } // nothing is under way

// Heartbeat sends one and waits for the answer, until a deadline. After an error that is no *kerr.Error the peer is to be closed.
func (p *Peer) Heartbeat(h controller.Heartbeat, deadline time.Time) (fenced, mayStop bool, err error) {
	req := kmsg.NewPtrBrokerHeartbeatRequest()
	req.Version, req.BrokerID, req.BrokerEpoch, req.WantShutdown = 1, int32(h.ID), h.Epoch, h.Leaving
	if h.Full {
		req.OfflineLogDirs = [][16]byte{{}} // a broker has one, which has no id
	}
	answer, err := p.ask(req, deadline)
	if err != nil {
		return false, false, fmt.Errorf("heartbeat: %w", err)
	}
	resp := answer.(*kmsg.BrokerHeartbeatResponse)
	return resp.IsFenced, resp.ShouldShutdown, kerr.ErrorForCode(resp.ErrorCode)
}

// ask sends a request and waits for its response, until a deadline. After an error the peer is to be closed.
func (p *Peer) ask(req kmsg.Request, deadline time.Time) (kmsg.Response, error) {
	if err := p.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	body, err := p.roundTrip(req)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind() // of the request's version
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return resp, nil
}

// roundTrip sends a flexible request and returns the body of its response.
func (p *Peer) roundTrip(req kmsg.Request) ([]byte, error) {
	p.corr++
	if _, err := p.conn.Write(p.format.AppendRequest(nil, req, p.corr)); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	var head [4]byte
	if _, err := io.ReadFull(p.conn, head[:]); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 5 || size > peerResponseBytes {
		return nil, fmt.Errorf("receive: a response of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(p.conn, body); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	// After the correlation id stand the header's tagged fields, which no broker sends any of.
	if corr := int32(binary.BigEndian.Uint32(body)); corr != p.corr || body[4] != 0 {
		return nil, fmt.Errorf("receive: response %d to request %d", corr, p.corr)
	}
	return body[5:], nil
}
