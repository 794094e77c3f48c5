package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// distance forwards connections to a server, and what the server says arrives late: a bucket that is not in the same room. How much
// fits through does not change.
type distance struct {
	ln     net.Listener
	target string
	late   atomic.Int64 // nanoseconds
	wg     sync.WaitGroup
	mu     struct {
		sync.Mutex
		conns map[net.Conn]struct{}
	}
}

func newDistance(ln net.Listener, target string) *distance {
	d := &distance{ln: ln, target: target}
	d.mu.conns = map[net.Conn]struct{}{}
	d.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() { d.serve(client) })
		}
	})
	return d
}

func (d *distance) set(late time.Duration) { d.late.Store(int64(late)) }

func (d *distance) close() {
	_ = d.ln.Close()
	d.mu.Lock()
	for c := range d.mu.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

func (d *distance) hold(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.conns[c] = struct{}{}
}

func (d *distance) drop(c net.Conn) {
	_ = c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.conns, c)
}

func (d *distance) serve(client net.Conn) {
	d.hold(client)
	defer d.drop(client)
	server, err := net.Dial("tcp", d.target)
	if err != nil {
		return
	}
	d.hold(server)
	defer d.drop(server)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		d.forward(client, server, false)
	}()
	d.forward(server, client, true)
	<-asked
}

// piece is what was read at once, and when it may go on.
type piece struct {
	data []byte
	due  time.Time
}

// forward copies until one side ends, and ends both.
func (d *distance) forward(from, to net.Conn, late bool) {
	defer from.Close()
	defer to.Close()
	const pieces, pieceBytes = 256, 64 << 10
	way := make(chan piece, pieces)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer from.Close() // also ends the loop below
		for p := range way {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				return
			}
		}
	}()
	for {
		buf := make([]byte, pieceBytes)
		n, err := from.Read(buf)
		if n > 0 {
			p := piece{data: buf[:n], due: time.Now()}
			if late {
				p.due = p.due.Add(time.Duration(d.late.Load()))
			}
			select {
			case way <- p:
			case <-done:
				return
			}
		}
		if err != nil {
			close(way)
			<-done
			return
		}
	}
}
