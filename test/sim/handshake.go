package sim

import (
	"context"
	"net"
)

// shaking is a client's connection until its handshake is over. franz-go's consumer holds a lock while a request that it has given up
// waits for its connection's handshake, which does not look at the request's context. A bubble where somebody waits for that lock has
// no time, so the answer of the handshake never comes: such a connection ends with its request.
type shaking struct {
	net.Conn
	keep  func() bool
	asked bool // the handshake's request was written
}

func shake(ctx context.Context, conn net.Conn) net.Conn {
	return &shaking{Conn: conn, keep: context.AfterFunc(ctx, func() { _ = conn.Close() })}
}

// Write is used by one goroutine at a time.
func (c *shaking) Write(b []byte) (int, error) {
	if c.asked {
		c.keep()
	}
	c.asked = true
	return c.Conn.Write(b)
}
