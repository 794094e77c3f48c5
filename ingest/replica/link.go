package replica

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// link is one connection to the leader: a request, its response, the next request. It belongs to one goroutine; only deadlines
// and Close come from others.
type link struct {
	conn     net.Conn
	in       *bufio.Reader
	out      []byte
	body     []byte // of the last response
	corr     int32
	format   *kmsg.RequestFormatter
	maxBytes int // of a response
}

func newLink(conn net.Conn, clientID string, maxBytes int) *link {
	return &link{
		conn: conn, in: bufio.NewReaderSize(conn, 64<<10), maxBytes: maxBytes,
		format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)),
	}
}

// fetch sends a flexible Fetch and reads its response, whose batches lie in a buffer that the next fetch uses again.
func (l *link) fetch(req *kmsg.FetchRequest) (*kmsg.FetchResponse, error) {
	l.corr++
	l.out = l.format.AppendRequest(l.out[:0], req, l.corr)
	if _, err := l.conn.Write(l.out); err != nil {
		return nil, fmt.Errorf("send fetch: %w", err)
	}
	var head [9]byte // length, correlation id, the header's tagged fields, which no leader sends any of
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return nil, fmt.Errorf("read fetch response: %w", err)
	}
	size := int(int32(binary.BigEndian.Uint32(head[:]))) - (len(head) - 4)
	corr := int32(binary.BigEndian.Uint32(head[4:]))
	if size < 0 || size > l.maxBytes || corr != l.corr || head[8] != 0 {
		return nil, fmt.Errorf("fetch response %d of %d bytes to request %d: malformed or too large", corr, size, l.corr)
	}
	if size > cap(l.body) || size < cap(l.body)/16 { // one that a backlog made large does not stay
		l.body = make([]byte, size+size/4)
	}
	l.body = l.body[:size]
	if _, err := io.ReadFull(l.in, l.body); err != nil {
		return nil, fmt.Errorf("read fetch response of %d bytes: %w", size, err)
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = req.Version
	if err := resp.ReadFrom(l.body); err != nil {
		return nil, fmt.Errorf("decode fetch response: %w", err)
	}
	return resp, nil
}
