package tiering

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestLoan(t *testing.T) {
	data := []byte("0123456789")
	l := lend(data)
	got, err := io.ReadAll(io.NewSectionReader(l, 0, int64(len(data))))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%q %v", got, err)
	}
	if n, err := l.ReadAt(make([]byte, 4), 8); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("%d %v at the end", n, err)
	}
	if _, err := l.ReadAt(make([]byte, 1), 10); !errors.Is(err, io.EOF) {
		t.Errorf("%v behind the end", err)
	}
	l.revoke()
	if _, err := l.ReadAt(make([]byte, 1), 0); !errors.Is(err, errRevoked) {
		t.Errorf("%v after the loan was revoked", err)
	}
}

func TestBuffers(t *testing.T) {
	b := newBuffers(1, 100)
	first := b.take(100)
	b.give(first[:50])
	b.give(make([]byte, 7)) // no room
	if again := b.take(80); len(again) != 0 || cap(again) != cap(first) {
		t.Errorf("%d of %d bytes, want the first buffer", len(again), cap(again))
	}
	b.give(make([]byte, 101)) // too large
	if cap(b.take(10)) != 10 {
		t.Error("a large buffer was kept")
	}
	b.give(first)
	b.drop()
	if cap(b.take(10)) != 10 {
		t.Error("an idle archiver kept a buffer")
	}
}

func TestLRU(t *testing.T) {
	l := newLRU[int](10, func(s string) int64 { return int64(len(s)) })
	l.put(1, "aaaa")
	l.put(2, "bbbb")
	l.get(1)
	l.put(3, "cccc") // evicts 2
	_, one := l.get(1)
	_, two := l.get(2)
	if !one || two || l.bytes() != 8 {
		t.Errorf("1: %v, 2: %v, %d bytes", one, two, l.bytes())
	}
	l.put(1, "aa")
	l.remove(3)
	if l.bytes() != 2 {
		t.Errorf("%d bytes", l.bytes())
	}
	l.put(4, "longer than the whole budget")
	if _, ok := l.get(4); !ok {
		t.Error("the last value is not kept")
	}
}
