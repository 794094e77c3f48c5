package ingest

import (
	"testing"

	"github.com/varvelog/varve/record"
)

// TestDroppedPartitionsLeaveTheTail: topics that come and go within the tail's limit leave nothing behind.
func TestDroppedPartitionsLeaveTheTail(t *testing.T) {
	tl := newTail(1 << 20)
	stays := &Partition{}
	for range 1000 {
		p := &Partition{}
		for range 10 {
			p.mu.tail.push(make([]byte, 100))
			tl.add(p, make(record.Batch, 100))
		}
		stays.mu.tail.push(make([]byte, 100))
		tl.add(stays, make(record.Batch, 100))
		tl.dropPartition(p)
	}
	if n, want := len(tl.mu.fifo)-tl.mu.head, 1000; n != want || tl.size() != int64(want)*(100+batchOverheadBytes) {
		t.Fatalf("%d entries, %d bytes, want %d entries", n, tl.size(), want)
	}
	tl.add(stays, make(record.Batch, 1<<20)) // evicts all that came before, in step with the queue
	if _, ok := stays.mu.tail.start(); ok {
		t.Fatal("the queue holds more than its entries")
	}
}
