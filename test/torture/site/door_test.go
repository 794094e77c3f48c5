package site

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"
)

// TestDoor talks to an echo server through a door that opens, dies and hangs.
func TestDoor(t *testing.T) {
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	echo := listen()
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintln(c, in.Text())
				}
			}()
		}
	}()
	d := NewDoor(listen(), echo.Addr().String())
	defer d.Close()
	dial := func() (net.Conn, *bufio.Scanner) {
		c, err := net.Dial("tcp", d.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, bufio.NewScanner(c)
	}
	c, in := dial()
	say := func(word string) {
		t.Helper()
		fmt.Fprintln(c, word)
		if !in.Scan() || in.Text() != word {
			t.Fatalf("heard %q (%v), want %q", in.Text(), in.Err(), word)
		}
	}
	say("open")
	d.Hang()
	fmt.Fprintln(c, "hung")
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if buf := make([]byte, 1); true {
		if n, err := c.Read(buf); n > 0 || err == nil {
			t.Fatalf("heard %q through a door that hangs", buf[:n])
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	d.Open()
	if !in.Scan() || in.Text() != "hung" {
		t.Fatalf("after a hang: heard %q (%v)", in.Text(), in.Err())
	}
	d.Die()
	if in.Scan() {
		t.Fatalf("heard %q from the dead", in.Text())
	}
	if _, again := dial(); again.Scan() {
		t.Fatal("a dead server answers")
	}
	d.Open()
	c, in = dial()
	say("open again")
}
