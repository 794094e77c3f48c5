package site

import (
	"net"
	"sync"
	"time"
)

// Door forwards connections to a server while it is open. Shut as by a dead server it ends connections and refuses new ones, as by a
// hung one it takes them and nothing moves.
type Door struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup
	mu     struct {
		sync.Mutex
		state state
		moves chan struct{} // closed when the state changes
		conns map[net.Conn]bool
	}
}

type state int

const (
	open state = iota
	dead
	hung
)

// NewDoor serves the listener until Close.
func NewDoor(ln net.Listener, target string) *Door {
	d := &Door{ln: ln, target: target}
	d.mu.moves, d.mu.conns = make(chan struct{}), map[net.Conn]bool{}
	d.wg.Go(d.accept)
	return d
}

// Open lets everything through.
func (d *Door) Open() { d.set(open) }

// Die is the server's death.
func (d *Door) Die() { d.set(dead) }

// Hang is a server that is stopped where it is.
func (d *Door) Hang() { d.set(hung) }

func (d *Door) set(s state) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.state = s
	close(d.mu.moves)
	d.mu.moves = make(chan struct{})
	if s == dead {
		for c := range d.mu.conns {
			c.Close()
		}
	}
}

// Close ends the door and waits for all that went through it.
func (d *Door) Close() {
	d.ln.Close()
	d.set(dead)
	d.wg.Wait()
}

// enter waits while the door hangs, and is false where it is dead.
func (d *Door) enter() bool {
	for {
		d.mu.Lock()
		s, moves := d.mu.state, d.mu.moves
		d.mu.Unlock()
		switch s {
		case open:
			return true
		case dead:
			return false
		}
		<-moves
	}
}

func (d *Door) keep(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.state == dead {
		return false
	}
	d.mu.conns[c] = true
	return true
}

func (d *Door) drop(c net.Conn) {
	d.mu.Lock()
	delete(d.mu.conns, c)
	d.mu.Unlock()
	c.Close()
}

func (d *Door) accept() {
	for {
		c, err := d.ln.Accept()
		if err != nil {
			return // closed
		}
		d.wg.Go(func() { d.serve(c) })
	}
}

func (d *Door) serve(c net.Conn) {
	defer d.drop(c)
	if !d.keep(c) || !d.enter() {
		return
	}
	const dialTimeout = 5 * time.Second
	t, err := net.DialTimeout("tcp", d.target, dialTimeout)
	if err != nil {
		return
	}
	defer d.drop(t)
	if !d.keep(t) {
		return
	}
	var ways sync.WaitGroup
	ways.Go(func() { d.copy(t, c) })
	ways.Go(func() { d.copy(c, t) })
	ways.Wait()
}

// copy moves bytes one way while the door is open; its end is the end of both ways (HTTP needs no half-open connections).
func (d *Door) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !d.enter() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
