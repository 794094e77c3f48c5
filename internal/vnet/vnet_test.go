package vnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const here, there = "10.0.0.1", "10.0.0.2"

// bubble runs fn with a network of 1 ms a way, in fake time.
func bubble(t *testing.T, fn func(t *testing.T, n *Net)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, New(Options{Latency: time.Millisecond})) })
}

// connect returns both ends of a connection from here to there.
func connect(t *testing.T, n *Net) (near, far net.Conn) {
	t.Helper()
	l, err := n.Host(there).Listen("tcp", "0.0.0.0:9")
	if err != nil {
		t.Fatal(err)
	}
	if near, err = n.Host(here).Dial(t.Context(), "tcp", there+":9"); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return near, far
}

func TestBytesArriveAfterTheLatencyThenTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, n *Net) {
		near, far := connect(t, n)
		n.Slow(here, there, 20*time.Millisecond)
		begin := time.Now()
		if _, err := near.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		all, err := io.ReadAll(far)
		if string(all) != "abc" || err != nil || time.Since(begin) != 21*time.Millisecond {
			t.Errorf("read %q, %v after %v", all, err, time.Since(begin))
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
		_ = far.Close()
	})
}

func TestNobodyListens(t *testing.T) {
	bubble(t, func(t *testing.T, n *Net) {
		if _, err := n.Host(here).Dial(t.Context(), "tcp", there+":9"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		n.Cut(there, here, true) // the refusal does not come back
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host(here).Dial(ctx, "tcp", there+":9"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial through a cut: %v", err)
		}
	})
}

func TestACutHoldsOneDirection(t *testing.T) {
	bubble(t, func(t *testing.T, n *Net) {
		near, far := connect(t, n)
		n.Cut(here, there, true)
		_, _ = near.Write([]byte("late"))
		_, _ = far.Write([]byte("soon"))
		buf := make([]byte, 8)
		if k, err := near.Read(buf); string(buf[:k]) != "soon" || err != nil {
			t.Errorf("the other direction: %q, %v", buf[:k], err)
		}
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := far.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read through a cut: %v", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		n.Cut(here, there, false)
		if k, err := far.Read(buf); string(buf[:k]) != "late" || err != nil {
			t.Errorf("after the cut: %q, %v", buf[:k], err)
		}
		_, _ = near.Close(), far.Close()
	})
}

func TestADeathIsNotHeardThroughACut(t *testing.T) {
	bubble(t, func(t *testing.T, n *Net) {
		near, far := connect(t, n)
		n.Cut(there, here, true)
		n.Kill(there)
		buf := make([]byte, 1)
		if _, err := far.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead end reads: %v", err)
		}
		_ = near.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := near.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read through a cut: %v", err)
		}
		_ = near.SetReadDeadline(time.Time{})
		n.Cut(there, here, false)
		if _, err := near.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the cut: %v", err)
		}
		_ = near.Close()
	})
}

func TestAWriterWaitsForTheReader(t *testing.T) {
	bubble(t, func(t *testing.T, n *Net) {
		near, far := connect(t, n)
		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		var sent int
		var err error
		for err == nil {
			var k int
			k, err = near.Write(make([]byte, window/4))
			sent += k
		}
		if sent != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes went, then: %v", sent, err)
		}
		_ = near.Close()
		if all, err := io.ReadAll(far); len(all) != window || err != nil {
			t.Errorf("read %d bytes, %v", len(all), err)
		}
		_ = far.Close()
	})
}

// TestStandStill: nothing reaches a host that stands still, and what was sent meanwhile arrives when it goes on; a link that dies after
// some writes passes those.
func TestStandStill(t *testing.T) {
	bubble(t, func(t *testing.T, n *Net) {
		near, far := connect(t, n)
		buf := make([]byte, 10)
		read := func(want string) {
			t.Helper()
			_ = far.SetReadDeadline(time.Now().Add(time.Second))
			m, err := far.Read(buf)
			if got := string(buf[:m]); got != want || (err != nil) != (want == "") {
				t.Errorf("read %q, %v; want %q", got, err, want)
			}
		}
		send := func(s string) {
			t.Helper()
			if _, err := near.Write([]byte(s)); err != nil {
				t.Error(err)
			}
		}
		n.Stop(there, true)
		if send("x"); !n.IsCut(here, there) || !n.IsStopped(there) {
			t.Error("a host that stands still is reached")
		}
		read("")
		n.Cut(here, there, false) // of a fault that ends meanwhile
		read("")
		n.Stop(there, false)
		read("x")
		n.CutAfter(here, there, 2)
		send("1")
		read("1")
		send("2")
		read("2")
		send("3")
		read("")
		n.Cut(here, there, false)
		read("3")
	})
}
