// Package vnet is a network in memory: the twin of TCP between the brokers and clients of a simulation. It cuts and slows each
// direction between two hosts on its own, refuses connections where nobody listens, and breaks those of a host that dies. It
// takes its time from a Clock, so it works in a testing/synctest bubble, and waits on channels only.
//
// As with TCP, what is cut is not lost: bytes wait until the cut heals, or the connection is closed.
package vnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/varvelog/varve/internal/clock"
)

// Options configure a Net. The zero value is usable.
type Options struct {
	Clock clock.Clock // default: clock.Real
	// Latency is the least time of a byte's way, Jitter what chance adds at most. Default: none.
	Latency, Jitter time.Duration
	Seed            uint64 // of the jitter
}

// Net is a network of hosts, which have IP addresses as names. It is safe for concurrent use.
type Net struct {
	opts Options
	mu   struct {
		sync.Mutex
		rng       *rand.Rand
		listeners map[string]*listener // by host:port
		conns     map[*conn]struct{}
		links     map[link]state
		stopped   map[string]bool // hosts that stand still
		changed   chan struct{}   // closed and replaced when a link changes
		port      int             // last ephemeral port
	}
}

type link struct{ from, to string }

type state struct {
	cut   bool
	delay time.Duration // added to the latency
	last  int           // it is cut at the write after so many more; 0: it is not
}

// New returns a network where every host reaches every other.
func New(o Options) *Net {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	n := &Net{opts: o}
	n.mu.rng = rand.New(rand.NewPCG(o.Seed, 0x766e6574))
	n.mu.listeners, n.mu.conns, n.mu.links = map[string]*listener{}, map[*conn]struct{}{}, map[link]state{}
	n.mu.stopped = map[string]bool{}
	n.mu.changed, n.mu.port = make(chan struct{}), 40000
	return n
}

// Host is one host's view of the network.
type Host struct {
	net *Net
	ip  string
}

// Host returns the host with an IP address.
func (n *Net) Host(ip string) *Host { return &Host{n, ip} }

// Cut stops, or heals, what goes from one host to another; the other direction is not concerned.
func (n *Net) Cut(from, to string, cut bool) {
	n.change(link{from, to}, func(s *state) { s.cut, s.last = cut, 0 })
}

// Stop makes a host stand still, or go on: nothing reaches it or leaves it meanwhile, whatever is cut or healed.
func (n *Net) Stop(ip string, stopped bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.stopped[ip] = stopped
	n.signalLocked()
}

// Slow adds a delay to what goes from one host to another, from now on; 0 takes it away.
func (n *Net) Slow(from, to string, delay time.Duration) {
	n.change(link{from, to}, func(s *state) { s.delay = delay })
}

// CutAfter lets so many more writes pass from one host to another, and stops what comes then.
func (n *Net) CutAfter(from, to string, writes int) {
	n.change(link{from, to}, func(s *state) { s.last = writes + 1 })
}

// sending counts a write.
func (n *Net) sending(l link) {
	n.mu.Lock()
	last := n.mu.links[l].last
	n.mu.Unlock()
	if last > 0 {
		n.change(l, func(s *state) {
			if s.last > 0 {
				s.last--
				s.cut = s.cut || s.last == 0
			}
		})
	}
}

func (n *Net) change(l link, fn func(*state)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.links[l]
	fn(&s)
	n.mu.links[l] = s
	n.signalLocked()
}

func (n *Net) signalLocked() {
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// IsCut tells whether nothing goes from one host to another.
func (n *Net) IsCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cutLocked(link{from, to})
}

func (n *Net) cutLocked(l link) bool {
	return n.mu.links[l].cut || n.mu.stopped[l.from] || n.mu.stopped[l.to]
}

// IsStopped tells whether a host stands still.
func (n *Net) IsStopped(ip string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.stopped[ip]
}

// Reset breaks every connection between two hosts, at both ends at once.
func (n *Net) Reset(a, b string) {
	for _, c := range n.connsOf(func(c *conn) bool {
		return c.local.host == a && c.remote.host == b || c.local.host == b && c.remote.host == a
	}) {
		c.breakOff(true)
	}
}

// Kill ends a host's process: nobody listens there any more, and its connections are gone. The other ends learn of it like
// of any other byte: after the latency, and not while that direction is cut.
func (n *Net) Kill(ip string) {
	n.mu.Lock()
	var listeners []*listener
	for _, l := range n.mu.listeners {
		if l.at.host == ip {
			listeners = append(listeners, l)
		}
	}
	n.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // nobody is left to be told
	}
	for _, c := range n.connsOf(func(c *conn) bool { return c.local.host == ip }) {
		c.breakOff(false)
	}
}

func (n *Net) connsOf(match func(*conn) bool) (out []*conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.mu.conns {
		if match(c) {
			out = append(out, c)
		}
	}
	return out
}

// look tells whether a direction is cut, and gives the channel that is closed at the next change of any link.
func (n *Net) look(l link) (cut bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cutLocked(l), n.mu.changed
}

// way is how long a byte that leaves now is under way.
func (n *Net) way(l link) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.opts.Latency + n.mu.links[l].delay
	if n.opts.Jitter > 0 {
		d += time.Duration(n.mu.rng.Int64N(int64(n.opts.Jitter)))
	}
	return d
}

// address is a net.Addr.
type address struct {
	host string
	port int
}

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

func parse(addr string) (address, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return address{}, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("address %s: port: %w", addr, err)
	}
	return address{host, int(p)}, nil
}

func (n *Net) ephemeral(host string) address {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.port++
	return address{host, n.mu.port}
}

func opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: addr, Err: err}
}

// Dial connects to host:port: ECONNREFUSED where nobody listens, the context's error where no answer comes.
func (h *Host) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	to, err := parse(addr)
	if err != nil {
		return nil, err
	}
	// Out and back again.
	for _, l := range [...]link{{h.ip, to.host}, {to.host, h.ip}} {
		if err := h.net.pass(ctx, l); err != nil {
			return nil, opError("dial", to, err)
		}
	}
	h.net.mu.Lock()
	l := h.net.mu.listeners[to.String()]
	h.net.mu.Unlock()
	if l == nil {
		return nil, opError("dial", to, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	near, far := h.net.pair(h.net.ephemeral(h.ip), to)
	if !l.offer(far) {
		near.breakOff(true)
		return nil, opError("dial", to, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	return near, nil
}

// pass waits for as long as a packet takes, and while the way is cut.
func (n *Net) pass(ctx context.Context, l link) error {
	if d := n.way(l); d > 0 {
		t := n.opts.Clock.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		cut, changed := n.look(l)
		if !cut {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
