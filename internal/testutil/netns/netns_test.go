//go:build linux

package netns

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
)

func newNet(t *testing.T, nodes int) *Net {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	w, err := New(nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestCutOneDirection sends datagrams both ways between each pair of three nodes while the way from 0 to 1 is cut: what is sent
// on it is lost, what is sent on all others, and on it after it has healed, arrives.
func TestCutOneDirection(t *testing.T) {
	w := newNet(t, 3)
	var conns [3]net.PacketConn
	for i := range conns {
		c, err := w.ListenPacket(t.Context(), i, "udp4", w.Addr(i)+":7000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	send := func(from, to int, text string) {
		t.Helper()
		if _, err := conns[from].WriteTo([]byte(text), &net.UDPAddr{IP: net.ParseIP(w.Addr(to)), Port: 7000}); err != nil {
			t.Fatalf("%d to %d: %v", from, to, err)
		}
	}
	receive := func(at int, want string) {
		t.Helper()
		buf := make([]byte, 100)
		n, _, err := conns[at].ReadFrom(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("node %d received %q (%v), want %q", at, buf[:n], err, want)
		}
	}
	all := func(round string, cut bool) {
		t.Helper()
		for from := range 3 {
			for to := range 3 {
				if from == to {
					continue
				}
				text := fmt.Sprintf("%s %d-%d", round, from, to)
				send(from, to, text)
				if !cut || from != 0 || to != 1 {
					receive(to, text)
				}
			}
		}
	}
	all("before", false)
	if err := w.Cut(0, 1); err != nil {
		t.Fatal(err)
	}
	all("cut", true)
	if err := w.Heal(0, 1); err != nil {
		t.Fatal(err)
	}
	all("healed", false) // "cut 0-1" would arrive first
	for _, way := range [][2]int{{0, 1}, {1, 0}, {2, 0}} {
		if err := w.Cut(way[0], way[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.HealAll(); err != nil {
		t.Fatal(err)
	}
	all("healed all", false)
	if err := w.Heal(0, 1); err == nil {
		t.Error("healing what is not cut is no error")
	}
}

// TestDialAndExec talks over TCP between two nodes, one of them a process of its own, and not to the machine's network.
func TestDialAndExec(t *testing.T) {
	w := newNet(t, 2)
	l, err := w.Listen(t.Context(), 1, "tcp4", w.Addr(1)+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		line, _ := bufio.NewReader(c).ReadString('\n')
		got <- line
	}()
	c, err := w.Dial(t.Context(), 0, "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "hello")
	if line := <-got; line != "hello\n" {
		t.Errorf("received %q", line)
	}
	line := append(w.Exec(0), "ip", "-4", "-o", "addr", "show", "scope", "global")
	out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), w.Addr(0)+"/") {
		t.Errorf("addresses of node 0: %s (%v)", out, err)
	}
}
