package kafka

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// headSize is what is read before memory is reserved: length, API key, version and correlation id.
const headSize = 12

// firstChunk is how much of a large body must have arrived before all of it is allocated: a length prefix alone costs this.
const firstChunk = 64 << 10

// frame is one request as it came.
type frame struct {
	route   *route
	key     int16
	version int16
	corr    int32
	size    int    // of the frame without its length
	body    []byte // after the correlation id
	hold    *hold
	// unsupported marks an ApiVersions of a version that we do not know: it alone is answered (with the v0 body).
	unsupported bool
}

// errIdle ends a connection that nobody uses.
var errIdle = errors.New("idle")

// protocolError is what a client did that ends its connection.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return e.what }

func violation(format string, args ...any) error { return &protocolError{fmt.Sprintf(format, args...)} }

// readFrame reads one request. It waits for the first byte without a buffer, so that an idle connection costs none.
func (c *conn) readFrame() (*frame, error) {
	if err := c.readHead(); err != nil {
		return nil, err
	}
	f := &frame{
		size:    int(int32(binary.BigEndian.Uint32(c.head[0:]))),
		key:     int16(binary.BigEndian.Uint16(c.head[4:])),
		version: int16(binary.BigEndian.Uint16(c.head[6:])),
		corr:    int32(binary.BigEndian.Uint32(c.head[8:])),
	}
	if err := c.route(f); err != nil {
		return nil, err
	}
	bodySize := f.size - (headSize - 4)
	if err := c.waitForWindow(int64(f.size)); err != nil {
		return nil, err
	}
	bytes := f.route.weight(f.size)
	prompt := f.route.prompt && c.unfinished.Load() == 0
	h, err := c.s.requests.of(prompt, bytes).acquire(c.ctx, bytes, c.kill)
	if err != nil {
		return nil, err
	}
	f.hold = h
	c.deadline(c.s.opts.Limits.FrameTimeout + time.Duration(f.size/admissionRate)*time.Second)
	if f.body, err = c.readBody(bodySize, h); err != nil {
		h.release()
		return nil, fmt.Errorf("read body: %w", err)
	}
	h.arrived()
	c.s.met.requestBytes(f)
	return f, nil
}

// route looks the API up and refuses what cannot be served, before any of the body is read.
func (c *conn) route(f *frame) error {
	f.route = c.s.table.find(f.key)
	switch {
	case f.route == nil:
		return violation("unsupported api key %d", f.key)
	case f.version >= f.route.min && f.version <= f.route.max:
	case f.key == int16(kmsg.ApiVersions):
		f.unsupported = true
	default:
		return violation("unsupported version %d of %s", f.version, f.route.name)
	}
	if f.key != int16(kmsg.Produce) && f.size > int(c.s.opts.Limits.MaxControlBytes) {
		return violation("%s of %d bytes", f.route.name, f.size)
	}
	return nil
}

// readHead waits for a request and reads its first 12 bytes.
func (c *conn) readHead() error {
	n, err := c.readFirst()
	if err != nil {
		return err
	}
	c.deadline(c.s.opts.Limits.FrameTimeout)
	if c.in == nil {
		c.in = c.s.buffers.reader(c.nc)
	}
	if n < 4 {
		if _, err := io.ReadFull(c.in, c.head[n:4]); err != nil {
			return fmt.Errorf("read length: %w", err)
		}
	}
	size := int32(binary.BigEndian.Uint32(c.head[:4]))
	if size < headSize-4 || size > c.s.opts.Limits.MaxRequestBytes {
		return violation("frame of %d bytes", size)
	}
	if _, err := io.ReadFull(c.in, c.head[4:headSize]); err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	return nil
}

// readFirst reads one to four bytes; while it waits for them the connection holds no buffer.
func (c *conn) readFirst() (int, error) {
	if c.s.conns.draining(c.s.opts.Clock.Now()) {
		return 0, errDraining
	}
	if c.in != nil {
		if c.in.Buffered() > 0 {
			return c.in.Read(c.head[:4])
		}
		c.s.buffers.put(c.in)
		c.in = nil
	}
	for {
		c.deadline(c.s.opts.Limits.IdleTimeout)
		if until := c.s.conns.until.Load(); until != nil { // after the line above: drain may have come before it
			_ = c.nc.SetReadDeadline(*until)
		}
		n, err := c.nc.Read(c.head[:4])
		switch {
		case n > 0:
			return n, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && c.s.conns.stopping():
			return 0, errDraining
		case errors.Is(err, os.ErrDeadlineExceeded) && c.busy():
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, errIdle
		case err == nil:
			return 0, io.ErrNoProgress
		default:
			return 0, err
		}
	}
}

// readBody reads size bytes. Beyond firstChunk it allocates only once the first of them are there.
func (c *conn) readBody(size int, h *hold) ([]byte, error) {
	body := make([]byte, min(size, firstChunk))
	if err := c.readFull(body, h); err != nil {
		return nil, err
	}
	if size == len(body) {
		return body, nil
	}
	whole := make([]byte, size)
	n := copy(whole, body)
	return whole, c.readFull(whole[n:], h)
}

// readFull is io.ReadFull that reports its progress to the admission.
func (c *conn) readFull(p []byte, h *hold) error {
	for len(p) > 0 {
		n, err := c.in.Read(p)
		h.got.Add(int64(n))
		p = p[n:]
		if err != nil && len(p) > 0 {
			return err
		}
	}
	return nil
}

func (c *conn) deadline(d time.Duration) {
	_ = c.nc.SetReadDeadline(c.s.opts.Clock.Now().Add(d)) // an error shows at the next read
}

// decode turns a frame into a request. The body was checked by the route's schema before kmsg sees it.
func (c *conn) decode(f *frame) (*request, error) {
	r := &request{conn: c, route: f.route, version: f.version, corr: f.corr, hold: f.hold, fetched: fetchHold{memory: c.s.fetched}, size: f.size, at: c.s.opts.Clock.Now()}
	if f.unsupported {
		r.Request = kmsg.NewPtrApiVersionsRequest()
		r.unsupported = true
		return r, nil
	}
	m := f.route.request()
	m.SetVersion(f.version)
	rest, client, err := cutHeader(f.body, m.IsFlexible())
	if err != nil {
		return nil, err
	}
	elements, err := f.route.check(rest, f.version, m.IsFlexible())
	if err != nil {
		return nil, violation("%s v%d: %v", f.route.name, f.version, err)
	}
	if err := m.ReadFrom(rest); err != nil {
		return nil, violation("decode %s v%d: %v", f.route.name, f.version, err)
	}
	f.hold.resize(f.route.used(f.size, elements))
	r.Request, r.clientID = m, client
	return r, nil
}

// cutHeader takes the client id and, of a flexible request, the header's tagged fields off body. The client id is never
// compact (KIP-482).
func cutHeader(body []byte, flexible bool) (rest []byte, client string, err error) {
	w := walker{src: body}
	client = string(w.take(int(w.i16())))
	if flexible {
		w.tags()
	}
	if w.bad {
		return nil, "", violation("malformed request header")
	}
	return w.src, client, nil
}

// bufferPools hold the buffers that only active connections need.
type bufferPools struct {
	readers syncPool[*bufio.Reader]
	writers syncPool[*[]byte]
}

// readBuffer is the size of a connection's read buffer while requests arrive.
const readBuffer = 32 << 10

func (b *bufferPools) reader(src io.Reader) *bufio.Reader {
	if r, ok := b.readers.get(); ok {
		r.Reset(src)
		return r
	}
	return bufio.NewReaderSize(src, readBuffer)
}

func (b *bufferPools) put(r *bufio.Reader) {
	r.Reset(nil)
	b.readers.put(r)
}

// maxPooledResponse is the largest encoding buffer that is kept for the next response.
const maxPooledResponse = 1 << 20

func (b *bufferPools) writer() *[]byte {
	if w, ok := b.writers.get(); ok {
		return w
	}
	w := make([]byte, 0, 4096)
	return &w
}

func (b *bufferPools) putWriter(w *[]byte) {
	if cap(*w) <= maxPooledResponse {
		*w = (*w)[:0]
		b.writers.put(w)
	}
}
