package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestDistanceLosesNothing sends more than fits on the way to a server that sends it back.
func TestDistanceLosesNothing(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDistance(ln, server.Addr().String())
	d.set(time.Millisecond)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("varve"), 8<<20)
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("what came back differs: %v", err)
	}
	d.close() // ends what is open
	if _, err := c.Read(got); err == nil {
		t.Error("the connection outlives the way")
	}
	_ = c.Close()
}
