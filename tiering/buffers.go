package tiering

import (
	"errors"
	"io"
	"sync"
)

// buffers keeps upload buffers from one object to the next while the archiver is busy: a fresh one costs page faults
// and garbage collection. It holds at most one per upload worker, none larger than most; an idle archiver holds none.
type buffers struct {
	free chan []byte
	most int64
}

func newBuffers(n int, most int64) *buffers { return &buffers{make(chan []byte, n), most} }

// take returns an empty buffer with at least the capacity.
func (b *buffers) take(capacity int64) []byte {
	select {
	case buf := <-b.free:
		if int64(cap(buf)) >= capacity {
			return buf[:0]
		}
		b.drop() // they are for other work, and would lie beside what this needs
	default:
	}
	return make([]byte, 0, capacity)
}

// give hands a buffer back that nobody reads any more. Nil, and what is too large or too much, are left to the garbage collector.
func (b *buffers) give(buf []byte) {
	if cap(buf) == 0 || int64(cap(buf)) > b.most {
		return
	}
	select {
	case b.free <- buf:
	default:
	}
}

// drop frees the buffers.
func (b *buffers) drop() {
	for {
		select {
		case <-b.free:
		default:
			return
		}
	}
}

// loan is an io.ReaderAt over a buffer until it is revoked: an HTTP transport may go on reading a request's body after the
// request has failed, when the buffer holds the next object already.
type loan struct {
	mu struct {
		sync.RWMutex
		data []byte
	}
}

var errRevoked = errors.New("the upload is over")

func lend(data []byte) *loan {
	l := &loan{}
	l.mu.data = data
	return l
}

// ReadAt implements io.ReaderAt.
func (l *loan) ReadAt(p []byte, off int64) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case l.mu.data == nil:
		return 0, errRevoked
	case off < 0 || off >= int64(len(l.mu.data)):
		return 0, io.EOF
	}
	n := copy(p, l.mu.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (l *loan) revoke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.data = nil
}
