package vnet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes of a direction may be under way or unread before a writer waits.
const window = 1 << 20

// stream is one direction of a connection: chunks that arrive in order, each at its time.
type stream struct {
	net  *Net
	link link
	mu   struct {
		sync.Mutex
		chunks  []chunk
		bytes   int
		arrival time.Time // of the last chunk: none overtakes another
		err     error     // the reader is gone or the connection broken: writes fail
		changed chan struct{}
	}
}

// chunk is what one Write sent; err instead ends the stream when it arrives.
type chunk struct {
	data []byte
	at   time.Time
	err  error
}

func newStream(n *Net, l link) *stream {
	s := &stream{net: n, link: l}
	s.mu.changed = make(chan struct{})
	return s
}

func (s *stream) signalLocked() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// send puts a chunk on its way.
func (s *stream) send(data []byte, err error) {
	s.net.sending(s.link)
	d := s.net.way(s.link)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.net.opts.Clock.Now().Add(d)
	if at.Before(s.mu.arrival) {
		at = s.mu.arrival
	}
	s.mu.arrival = at
	s.mu.chunks = append(s.mu.chunks, chunk{data, at, err})
	s.mu.bytes += len(data)
	s.signalLocked()
}

// abort drops what is under way and fails both ends.
func (s *stream) abort(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.chunks, s.mu.bytes, s.mu.err = []chunk{{err: err}}, 0, err
	s.signalLocked()
}

// refuse makes writes fail: nobody reads any more.
func (s *stream) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.err = err
	s.signalLocked()
}

// take copies what has arrived into p. Where nothing has, it says when something will at the soonest (zero: unknown) and gives
// the channel that is closed when that changes.
func (s *stream) take(p []byte) (n int, at time.Time, changed <-chan struct{}, err error) {
	now := s.net.opts.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mu.chunks) > 0 && n < len(p) {
		c := &s.mu.chunks[0]
		if c.at.After(now) {
			at = c.at
			break
		}
		if c.err != nil {
			if n > 0 {
				return n, at, nil, nil
			}
			return 0, at, nil, c.err // it stays: every later read fails too
		}
		m := copy(p[n:], c.data)
		n, s.mu.bytes = n+m, s.mu.bytes-m
		if c.data = c.data[m:]; len(c.data) == 0 {
			s.mu.chunks = s.mu.chunks[1:]
		}
	}
	if n > 0 {
		s.signalLocked() // there is room
	}
	return n, at, s.mu.changed, nil
}

// conn is one end of a connection.
type conn struct {
	net           *Net
	local, remote address
	in, out       *stream
	peer          *conn
	closed        chan struct{}
	once          sync.Once
	read, write   deadline
}

func (n *Net) pair(from, to address) (near, far *conn) {
	there, back := newStream(n, link{from.host, to.host}), newStream(n, link{to.host, from.host})
	near = &conn{net: n, local: from, remote: to, in: back, out: there, closed: make(chan struct{})}
	far = &conn{net: n, local: to, remote: from, in: there, out: back, closed: make(chan struct{})}
	near.peer, far.peer = far, near
	near.read.init()
	near.write.init()
	far.read.init()
	far.write.init()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.conns[near], n.mu.conns[far] = struct{}{}, struct{}{}
	return near, far
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if c.isClosed() {
			return 0, c.fail("read", net.ErrClosed)
		}
		until, moved := c.read.get()
		now := c.net.opts.Clock.Now()
		if !until.IsZero() && !until.After(now) {
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		}
		cut, healed := c.net.look(c.in.link)
		var n int
		var err error
		var at time.Time
		var changed <-chan struct{}
		if !cut {
			if n, at, changed, err = c.in.take(p); n > 0 || len(p) == 0 {
				return n, nil
			}
		} else {
			changed = c.in.changes()
		}
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err != nil:
			return 0, c.fail("read", err)
		}
		c.wait(now, earlier(at, until), moved, healed, changed)
	}
}

func (s *stream) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.changed
}

// wait returns at a time (zero: never) or when something has changed.
func (c *conn) wait(now, at time.Time, moved, healed, changed <-chan struct{}) {
	var due <-chan time.Time
	if !at.IsZero() {
		t := c.net.opts.Clock.NewTimer(at.Sub(now))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
	case <-moved:
	case <-healed:
	case <-changed:
	case <-c.closed:
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Write implements net.Conn. It waits while the window is full.
func (c *conn) Write(p []byte) (int, error) {
	for {
		if c.isClosed() {
			return 0, c.fail("write", net.ErrClosed)
		}
		until, moved := c.write.get()
		now := c.net.opts.Clock.Now()
		if !until.IsZero() && !until.After(now) {
			return 0, c.fail("write", os.ErrDeadlineExceeded)
		}
		full, changed, err := c.out.room()
		if err != nil {
			if cut, _ := c.net.look(c.out.link); cut {
				return len(p), nil // into the void: only an answer could tell that nobody reads
			}
			return 0, c.fail("write", err)
		}
		if !full {
			c.out.send(append([]byte(nil), p...), nil)
			return len(p), nil
		}
		c.wait(now, until, moved, nil, changed)
	}
}

func (s *stream) room() (full bool, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bytes >= window, s.mu.changed, s.mu.err
}

func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Close implements net.Conn: the other end reads what was written, then io.EOF.
func (c *conn) Close() error {
	err := c.fail("close", net.ErrClosed)
	c.once.Do(func() {
		err = nil
		c.out.send(nil, io.EOF)
		c.in.refuse(syscall.EPIPE)
		c.leave()
	})
	return err
}

// breakOff ends this end at once; the other end learns of it now, or as of any byte.
func (c *conn) breakOff(now bool) {
	c.once.Do(func() {
		reset := os.NewSyscallError("read", syscall.ECONNRESET)
		if now {
			c.out.abort(reset)
			c.in.abort(reset)
		} else {
			c.out.send(nil, reset)
			c.in.refuse(syscall.EPIPE)
		}
		c.leave()
	})
}

func (c *conn) leave() {
	close(c.closed)
	c.net.mu.Lock()
	delete(c.net.mu.conns, c)
	c.net.mu.Unlock()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t) // the second call answers the same
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.read, t) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *conn) setDeadline(d *deadline, t time.Time) error {
	if c.isClosed() {
		return c.fail("set deadline", net.ErrClosed)
	}
	d.set(t)
	return nil
}

// deadline is a time that wakes who waits when it is moved.
type deadline struct {
	mu struct {
		sync.Mutex
		until time.Time
		moved chan struct{}
	}
}

func (d *deadline) init() { d.mu.moved = make(chan struct{}) }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.until = t
	close(d.mu.moved)
	d.mu.moved = make(chan struct{})
}

func (d *deadline) get() (time.Time, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.until, d.mu.moved
}
