package vnet

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// backlog is how many connections wait to be accepted; more are refused.
const backlog = 512

type listener struct {
	net    *Net
	at     address
	queue  chan *conn
	closed chan struct{}
	once   sync.Once
}

// Listen listens on a port of this host, whatever host addr names; port 0 takes a free one.
func (h *Host) Listen(_, addr string) (net.Listener, error) {
	at, err := parse(addr)
	if err != nil {
		return nil, err
	}
	if at.host = h.ip; at.port == 0 {
		at = h.net.ephemeral(h.ip)
	}
	l := &listener{net: h.net, at: at, queue: make(chan *conn, backlog), closed: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.net.mu.listeners[at.String()] != nil {
		return nil, opError("listen", at, os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	h.net.mu.listeners[at.String()] = l
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, opError("accept", l.at, net.ErrClosed)
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, opError("accept", l.at, net.ErrClosed)
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.at }

// Close implements net.Listener. Connections that nobody accepted break.
func (l *listener) Close() error {
	err := opError("close", l.at, net.ErrClosed)
	l.once.Do(func() {
		err = nil
		l.net.mu.Lock()
		delete(l.net.mu.listeners, l.at.String())
		close(l.closed)
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				c.breakOff(false)
			default:
				return
			}
		}
	})
	return err
}

// offer hands over a new connection; false where the listener has closed, or has too many already.
func (l *listener) offer(c *conn) bool {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	select {
	case <-l.closed:
		return false
	default:
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}
