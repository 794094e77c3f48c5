//go:build linux

package netns

import (
	"net"
	"testing"
	"time"
)

// TestSlow leads one direction of a conversation over a slow link: what is sent on it is carried by it, in order, the way back does
// not touch it, nothing of a link without loss is lost, all of one with loss 1 is, and once closed it carries nothing.
func TestSlow(t *testing.T) {
	w := newNet(t, 2)
	var conns [2]net.PacketConn
	for i := range conns {
		c, err := w.ListenPacket(t.Context(), i, "udp4", w.Addr(i)+":7000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	send := func(from int, text string) {
		t.Helper()
		if _, err := conns[from].WriteTo([]byte(text), &net.UDPAddr{IP: net.ParseIP(w.Addr(1 - from)), Port: 7000}); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(at int, want string) {
		t.Helper()
		buf := make([]byte, 100)
		n, from, err := conns[at].ReadFrom(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("node %d received %q (%v), want %q", at, buf[:n], err, want)
		}
		if got := from.(*net.UDPAddr).IP.String(); got != w.Addr(1-at) {
			t.Fatalf("%q comes from %s", want, got)
		}
	}
	send(0, "before")
	receive(1, "before")
	s, err := w.Slow(0, 1, Link{Delay: time.Millisecond, BytesPerSecond: 1e6})
	if err != nil {
		t.Skip("no slow links here:", err)
	}
	for _, text := range []string{"a", "b", "c"} {
		send(0, text)
	}
	for _, text := range []string{"a", "b", "c"} {
		receive(1, text)
	}
	send(1, "back")
	receive(0, "back")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Carried() != 3 || s.Dropped() != 0 {
		t.Errorf("the link carried %d packets and dropped %d, want 3 and 0", s.Carried(), s.Dropped())
	}
	send(0, "after")
	receive(1, "after")
	if s, err = w.Slow(0, 1, Link{Loss: 1}); err != nil {
		t.Fatal(err)
	}
	send(0, "lost")
	for s.Dropped() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	send(0, "in the end")
	receive(1, "in the end") // "lost" would come first
}
