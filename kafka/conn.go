package kafka

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/trace"

	"github.com/varvelog/varve/coordinator/group"
)

// errDraining ends a connection because the server shuts down.
var errDraining = errors.New("the server shuts down")

// writerLinger is how long the second goroutine of a connection waits for another request before it ends.
const writerLinger = 2 * time.Second

// request is one decoded request on its way through the server.
type request struct {
	kmsg.Request
	conn     *conn
	route    *route
	version  int16
	corr     int32
	clientID string
	size     int // of the frame, bytes
	at       time.Time
	hold     *hold
	fetched  fetchHold  // until it is answered
	span     trace.Span // nil where the API has none
	failure  int16      // first error code, for the metrics
	throttle time.Duration
	parked   bool // its memory is counted as parked: it may wait

	// unsupported: an ApiVersions of a version that we do not know.
	unsupported bool
	// finish, where it is set, replaces the route's handler: begin has done the first part.
	finish finisher
}

// finisher does the part of a request that must wait for its turn. A nil response means that none is sent; an error
// closes the connection.
type finisher func(ctx context.Context, r *request) (kmsg.Response, error)

func (r *request) client() group.Client { return group.Client{ID: r.clientID, Host: r.conn.host} }

// conn is one client connection. Its reader goroutine lives as long as the connection; the writer goroutine exists only
// while there are requests to finish. What is not under mu belongs to the reader.
type conn struct {
	s      *Server
	nc     net.Conn
	host   string // as Kafka shows it: "/10.0.0.1"
	ip     string
	ctx    context.Context // ends when the connection does: parked handlers return
	cancel context.CancelFunc
	in     *bufio.Reader // nil while the connection is idle
	head   [headSize]byte
	freed  chan struct{} // capacity 1: a request was answered

	unfinished atomic.Int32 // requests that were read and whose handlers have not returned

	mu struct {
		sync.Mutex
		queue    []*request // read, not yet taken by the writer
		writing  bool       // the writer goroutine exists
		inFlight int        // read, not yet answered
		bytes    int64      // of those
		broken   bool       // nothing more can be answered
		wake     chan struct{}
		// heartbeat, where it is not nil, is the broker whose heartbeats come over this connection.
		heartbeat *heartbeatOf
	}
}

// serve runs the reader until the connection ends, then waits for the writer.
func (c *conn) serve() {
	err := c.readLoop()
	drain := c.s.conns.stopping()
	c.cancel() // parked handlers answer now
	if !drain {
		c.breakOff()
	}
	c.waitForWriter()
	c.breakOff()
	c.heartbeatEnded()
	if c.in != nil {
		c.s.buffers.put(c.in)
		c.in = nil
	}
	c.s.met.connectionEnded(err)
	c.logEnd(err)
}

func (c *conn) logEnd(err error) {
	var bad *protocolError
	switch {
	case errors.As(err, &bad):
		if c.s.loud.Allow(c.s.opts.Clock.Now()) {
			c.s.log.Info("connection closed: protocol violation", slog.String("client", c.host), slog.String("reason", bad.what))
		}
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errIdle), errors.Is(err, errDraining):
	default:
		c.s.log.Debug("connection ended", slog.String("client", c.host), slog.Any("err", err))
	}
}

// readLoop frames, decodes and enqueues until something ends the connection.
func (c *conn) readLoop() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.bug(p, "reader")
		}
	}()
	for {
		f, err := c.readFrame()
		if err != nil {
			return err
		}
		r, err := c.decode(f)
		if err != nil {
			f.hold.release()
			return err
		}
		wait := c.s.throttle(r)
		if err := c.begin(r); err != nil {
			r.hold.release()
			return err
		}
		if wait > 0 {
			if err := c.mute(wait); err != nil {
				return err
			}
		}
	}
}

// begin starts what is started in the order of arrival (Produce) and queues the request for its turn.
func (c *conn) begin(r *request) error {
	if r.route.begin != nil {
		if c.s.traced(r.route) {
			_, r.span = c.s.opts.Tracer.Start(c.ctx, r.route.span)
		}
		r.finish = r.route.begin(c.s, r)
	}
	c.unfinished.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.queue = append(c.mu.queue, r)
	c.mu.inFlight++
	c.mu.bytes += int64(r.size)
	c.s.met.inFlight(1)
	if c.mu.writing {
		c.wakeLocked()
		return nil
	}
	if !c.s.goroot.Go(func(context.Context) { c.writeLoop() }) {
		return errDraining
	}
	c.mu.writing = true
	return nil
}

func (c *conn) wakeLocked() {
	if c.mu.wake != nil {
		close(c.mu.wake)
		c.mu.wake = nil
	}
}

// waitForWindow blocks the reader while too many requests of this connection are unanswered.
func (c *conn) waitForWindow(size int64) error {
	l := &c.s.opts.Limits
	for {
		c.mu.Lock()
		open := c.mu.inFlight < l.MaxInFlight && (c.mu.inFlight == 0 || c.mu.bytes+size <= l.MaxInFlightBytes)
		broken := c.mu.broken
		c.mu.Unlock()
		switch {
		case broken:
			return net.ErrClosed
		case open:
			return nil
		}
		select {
		case <-c.freed:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// busy reports whether a request is unanswered: such a connection is not idle.
func (c *conn) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.inFlight > 0
}

// writeLoop finishes requests in order and ends when there was none for a while.
func (c *conn) writeLoop() {
	for {
		r, wake := c.next()
		if r != nil {
			c.answer(r)
			continue
		}
		timer := c.s.opts.Clock.NewTimer(writerLinger)
		select {
		case <-wake:
		case <-c.ctx.Done():
			if c.writerEnds() {
				timer.Stop()
				return
			}
		case <-timer.C:
			if c.writerEnds() {
				return
			}
		}
		timer.Stop()
	}
}

// next takes the oldest request, or says what to wait for.
func (c *conn) next() (*request, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.queue) > 0 {
		r := c.mu.queue[0]
		c.mu.queue[0] = nil
		c.mu.queue = c.mu.queue[1:]
		if len(c.mu.queue) == 0 {
			c.mu.queue = nil
		}
		return r, nil
	}
	if c.mu.wake == nil {
		c.mu.wake = make(chan struct{})
	}
	return nil, c.mu.wake
}

// writerEnds lets the writer goroutine go, unless a request came meanwhile.
func (c *conn) writerEnds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.queue) > 0 {
		return false
	}
	c.mu.writing = false
	c.mu.wake = nil
	c.signalFreed()
	return true
}

// waitForWriter returns when the writer goroutine is gone. The context has ended, so it goes as soon as its queue is empty.
func (c *conn) waitForWriter() {
	for {
		c.mu.Lock()
		writing := c.mu.writing
		c.mu.Unlock()
		if !writing {
			return
		}
		<-c.freed
	}
}

func (c *conn) signalFreed() {
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// answer runs one request's turn: handler, encoding, writing.
func (c *conn) answer(r *request) {
	defer c.answered(r)
	if c.isBroken() {
		if r.finish == nil {
			return // never begun: nobody is there to see an effect
		}
	}
	resp, err := c.run(r)
	// NB: before the response is written, so that a client's next request, which it sends on that, always finds it done.
	c.unfinished.Add(-1)
	switch {
	case err != nil:
		c.s.log.Debug("connection closed by a request", slog.String("api", r.route.name), slog.String("client", c.host), slog.Any("err", err))
		c.breakOff()
		return
	case resp == nil || c.isBroken():
		return
	}
	if err := c.write(r, resp); err != nil {
		c.s.met.writeFailed(err)
		c.breakOff()
	}
}

func (c *conn) answered(r *request) {
	r.hold.release()
	r.fetched.Keep(0)
	c.s.met.done(r)
	c.mu.Lock()
	c.mu.inFlight--
	c.mu.bytes -= int64(r.size)
	c.mu.Unlock()
	c.signalFreed()
}

// run calls the handler. A panic is a bug: it costs this connection, not the process.
func (c *conn) run(r *request) (resp kmsg.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, c.bug(p, r.route.name)
		}
	}()
	ctx := c.ctx
	if r.span != nil {
		ctx = trace.ContextWithSpan(ctx, r.span)
	} else if c.s.traced(r.route) {
		ctx, r.span = c.s.opts.Tracer.Start(ctx, r.route.span)
	}
	if r.finish != nil {
		resp, err = r.finish(ctx, r)
	} else {
		c.s.park(r)
		resp, err = r.route.handle(c.s, ctx, r)
	}
	if resp != nil {
		setThrottle(resp, r.throttle)
	}
	return resp, err
}

// park moves what a request holds to the parked budget before its handler waits, so that waiting requests do not keep others
// from being read. Where that budget is full it keeps its place in the first one, and a Fetch does not wait.
func (s *Server) park(r *request) {
	if !r.route.parks || r.hold == nil {
		return
	}
	if h := s.parked.take(r.hold.bytes, nil); h != nil {
		r.hold.release()
		r.hold = h
		r.parked = true
	}
}

func (c *conn) bug(p any, where string) error { return c.s.bug(p, where, c.host) }

func (s *Server) bug(p any, where, client string) error {
	s.log.Error("bug: panic in a connection", slog.String("where", where), slog.String("client", client),
		slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	return fmt.Errorf("panic in %s: %v", where, p)
}

// caught turns a panic of a goroutine that works for a request into its error; it is deferred.
func (s *Server) caught(where string, err *error) {
	if p := recover(); p != nil {
		*err = s.bug(p, where, "")
	}
}

// write encodes and sends a response.
func (c *conn) write(r *request, resp kmsg.Response) error {
	buf := c.s.buffers.writer()
	defer c.s.buffers.putWriter(buf)
	b := append((*buf)[:0], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.corr))
	// NB: the header of an ApiVersions response never has tagged fields, whatever its version (KIP-511).
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		b = append(b, 0)
	}
	var parts net.Buffers
	var total int
	if f, ok := resp.(*fetchResponse); ok {
		b, parts, total = f.encode(b)
	} else {
		b = resp.AppendTo(b)
		parts, total = net.Buffers{b}, len(b)
	}
	*buf = b
	binary.BigEndian.PutUint32(b, uint32(total-4))
	c.s.met.responseBytes(r, total)
	return c.send(parts)
}

// writeStep is how much of a response is written under one deadline.
const writeStep = 1 << 20

// send writes parts; each step of writeStep bytes has its own deadline, so that a slow reader is told from a dead one.
func (c *conn) send(parts net.Buffers) error {
	for len(parts) > 0 {
		if len(parts[0]) == 0 {
			parts = parts[1:]
			continue
		}
		step, size := net.Buffers(nil), 0
		for len(parts) > 0 && size < writeStep && len(step) < 256 {
			p := parts[0]
			if n := writeStep - size; len(p) > n {
				step, parts[0] = append(step, p[:n]), p[n:]
				break
			}
			step, parts, size = append(step, p), parts[1:], size+len(p)
		}
		if err := c.nc.SetWriteDeadline(c.s.opts.Clock.Now().Add(c.s.opts.Limits.WriteTimeout)); err != nil {
			return err
		}
		if _, err := step.WriteTo(c.nc); err != nil {
			return fmt.Errorf("write response: %w", err)
		}
	}
	return nil
}

func (c *conn) isBroken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.broken
}

// breakOff closes the connection; nothing more is answered.
func (c *conn) breakOff() {
	c.mu.Lock()
	c.mu.broken = true
	c.mu.Unlock()
	c.kill()
}

// kill closes the socket: reader and writer find out. It may be called from any goroutine.
func (c *conn) kill() {
	_ = c.nc.Close() // closing twice is fine, and there is nobody to tell
	c.cancel()
}

// mute stops reading for a while (KIP-219); answers go on.
func (c *conn) mute(d time.Duration) error {
	timer := c.s.opts.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}
