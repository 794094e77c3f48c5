package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("kafka: server closed")

// acceptPause is how long Serve waits after an accept that failed for want of something (file descriptors, say).
const acceptPause = 50 * time.Millisecond

// Serve accepts connections on l until Shutdown, then returns ErrServerClosed. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	if !s.conns.addListener(l) {
		_ = l.Close() // we never served it
		return ErrServerClosed
	}
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.accept(nc)
		case s.conns.stopping():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		default:
			s.log.Warn("accept failed", slog.String("addr", l.Addr().String()), slog.Any("err", err))
			timer := s.opts.Clock.NewTimer(acceptPause)
			select {
			case <-timer.C:
			case <-s.goroot.Context().Done():
			}
			timer.Stop()
		}
	}
}

// accept starts a connection or refuses it.
func (s *Server) accept(nc net.Conn) {
	ip := "unknown"
	if host, _, err := net.SplitHostPort(nc.RemoteAddr().String()); err == nil {
		ip = host
	}
	ctx, cancel := context.WithCancel(s.goroot.Context())
	c := &conn{s: s, nc: nc, ip: ip, host: "/" + ip, ctx: ctx, cancel: cancel, freed: make(chan struct{}, 1)}
	if reason := s.conns.add(c, s.connectionLimits(ip)); reason != "" {
		s.met.connectionRefused(reason)
		c.kill()
		return
	}
	started := s.goroot.Go(func(context.Context) {
		defer s.conns.remove(c)
		c.serve()
	})
	if !started {
		s.conns.remove(c)
		c.kill()
	}
}

// connLimits are the limits as they are when a connection comes: they are dynamic settings.
type connLimits struct{ total, perIP int }

// connectionLimits reads max.connections, max.connections.per.ip and its overrides for one address. What Limits sets goes first;
// Kafka's default, the largest int32, counts as not set.
func (s *Server) connectionLimits(ip string) connLimits {
	b := s.deps.meta.Image().Broker()
	l := connLimits{total: s.opts.Limits.MaxConnections, perIP: s.opts.Limits.MaxConnectionsPerIP}
	if l.total == 0 || l.total == math.MaxInt32 {
		l.total = defaultMaxConnections
		if n := int(b.MaxConnections); n > 0 && n < math.MaxInt32 {
			l.total = n
		}
	}
	if l.perIP == 0 || l.perIP == math.MaxInt32 {
		l.perIP = int(b.MaxConnectionsPerIP)
		for _, entry := range strings.Split(b.MaxConnectionsPerIPOver, ",") {
			at := strings.LastIndexByte(entry, ':')
			if at < 0 || strings.TrimSpace(entry[:at]) != ip {
				continue
			}
			if n, err := strconv.Atoi(strings.TrimSpace(entry[at+1:])); err == nil {
				l.perIP = n
			}
		}
	}
	return l
}

// drainLinger is how long requests are still read once no connection is accepted any more: what is on its way then is answered. A client
// takes it for a refusal, and not for a restart, where its connection ends before the first answer (franz-go: ErrFirstReadEOF).
const drainLinger = 100 * time.Millisecond

// Shutdown stops accepting, and reading after drainLinger. Requests that were read are answered; parked ones (long polls, joins) are
// answered at once then. It returns when all connections are closed, or closes them when ctx ends and returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.conns.drain(s.opts.Clock.Now().Add(drainLinger))
	var err error
	select {
	case <-s.conns.empty():
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.conns.killAll()
	s.goroot.Stop()
	return err
}

// connSet is the set of open connections and its limits.
type connSet struct {
	until atomic.Pointer[time.Time] // requests are read, nil: for ever; set under the lock
	mu    struct {
		sync.Mutex
		listeners []net.Listener
		conns     map[*conn]struct{}
		ips       map[string]int
		empty     chan struct{} // closed when draining and no connection is left
	}
}

func (t *connSet) init() {
	t.mu.conns = map[*conn]struct{}{}
	t.mu.ips = map[string]int{}
	t.mu.empty = make(chan struct{})
}

func (t *connSet) addListener(l net.Listener) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping() {
		return false
	}
	t.mu.listeners = append(t.mu.listeners, l)
	return true
}

// add returns why the connection is refused, or "".
func (t *connSet) add(c *conn, l connLimits) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopping():
		return "shutdown"
	case len(t.mu.conns) >= l.total:
		return "max.connections"
	case t.mu.ips[c.ip] >= l.perIP:
		return "max.connections.per.ip"
	}
	t.mu.conns[c] = struct{}{}
	t.mu.ips[c.ip]++
	return ""
}

func (t *connSet) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.mu.conns[c]; !ok {
		return
	}
	delete(t.mu.conns, c)
	if t.mu.ips[c.ip]--; t.mu.ips[c.ip] == 0 {
		delete(t.mu.ips, c.ip)
	}
	if t.stopping() && len(t.mu.conns) == 0 {
		close(t.mu.empty)
	}
}

func (t *connSet) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.conns)
}

// stopping reports whether no connection is accepted any more.
func (t *connSet) stopping() bool { return t.until.Load() != nil }

// draining reports whether no request is read any more.
func (t *connSet) draining(now time.Time) bool {
	until := t.until.Load()
	return until != nil && !now.Before(*until)
}

// drain closes the listeners; readers stop at until.
func (t *connSet) drain(until time.Time) {
	t.mu.Lock()
	if t.stopping() {
		t.mu.Unlock()
		return
	}
	t.until.Store(&until)
	listeners := t.mu.listeners
	var open []*conn
	for c := range t.mu.conns {
		open = append(open, c)
	}
	if len(open) == 0 {
		close(t.mu.empty)
	}
	t.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // Serve returns; there is nobody else to tell
	}
	for _, c := range open {
		_ = c.nc.SetReadDeadline(until) // a closed connection ends by itself
	}
}

func (t *connSet) empty() <-chan struct{} { return t.mu.empty }

func (t *connSet) killAll() {
	t.mu.Lock()
	var open []*conn
	for c := range t.mu.conns {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		c.breakOff()
	}
}
