package fetch_test

import (
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/record"
)

// memory is a fetch.Memory with a fixed room.
type memory struct {
	room int
	mu   sync.Mutex
	held int
	most int
}

func (m *memory) Reserve(bytes int) int {
	n := min(bytes, m.room)
	m.Keep(n)
	return n
}

func (m *memory) Keep(bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held, m.most = bytes, max(m.most, bytes)
}

func (m *memory) holds() (now, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held, m.most
}

// A Fetch reserves memory for what can come, before it comes, and keeps what came. While it waits it has no more than it has read.
func TestMemoryOfAFetch(t *testing.T) {
	r := newRig(t, 1, fetch.Options{ColdWait: func() time.Duration { return time.Hour }})
	tp, m := r.topic("t", nil), &model{}
	r.put(tp, m, 10, record.CodecNone)
	size := len(m.batches[0])
	answer := make(chan []fetch.PartitionResponse, 1)
	ask := func(mem *memory, req *fetch.Request) {
		req.MaxBytes, req.MaxWaitMs, req.Memory = 1<<20, 600000, mem
		go func() { answer <- r.svc.Fetch(t.Context(), req) }()
	}

	mem := &memory{room: 1 << 30}
	ask(mem, &fetch.Request{MinBytes: int32(3 * size), Partitions: []fetch.PartitionRequest{part(tp, 0, 100<<10)}})
	r.until("it waits", func() bool { now, most := mem.holds(); return now == size && most == 100<<10 })
	r.put(tp, m, 11, record.CodecNone)
	r.put(tp, m, 11, record.CodecNone)
	out := <-answer
	if now, _ := mem.holds(); len(out[0].Batches) != 3 || now != out[0].Bytes {
		t.Errorf("%d batches, %d bytes, of which %d are held", len(out[0].Batches), out[0].Bytes, now)
	}

	// Nothing has come: nothing is reserved, and it waits though there is no room.
	mem = &memory{}
	ask(mem, &fetch.Request{MinBytes: 1, Partitions: []fetch.PartitionRequest{part(tp, 32, 1<<20)}})
	r.put(tp, m, 10, record.CodecNone)
	if out := <-answer; len(out[0].Batches) != 1 || out[0].Err != nil {
		t.Errorf("a poll without room: %+v", out)
	}
	// There is something, and no room to wait for more.
	ask(mem, &fetch.Request{MinBytes: 1 << 20, Partitions: []fetch.PartitionRequest{part(tp, 0, 1<<20)}})
	if out := <-answer; len(out[0].Batches) != 1 || out[0].Err != nil {
		t.Errorf("a batch at least, and at once: %+v", out)
	}

	// The bucket is slow: what may come is reserved meanwhile.
	tp, m = r.topic("cold", map[string]string{"varve.tiering.max.lag.ms": "100"}), &model{}
	r.put(tp, m, 50, record.CodecNone)
	r.tier(tp)
	held := make(chan struct{})
	r.cold.held.Store(&held)
	mem = &memory{room: 1 << 30}
	ask(mem, &fetch.Request{MinBytes: 1, Partitions: []fetch.PartitionRequest{part(tp, 0, 100<<10)}})
	r.until("the bucket is asked", func() bool { return r.cold.under.Load() == 1 })
	if now, _ := mem.holds(); now != 100<<10 {
		t.Errorf("%d bytes are held while the bucket is read, want %d", now, 100<<10)
	}
	close(held)
	out = <-answer
	if now, _ := mem.holds(); out[0].Bytes == 0 || now != out[0].Bytes {
		t.Errorf("%d bytes, of which %d are held", out[0].Bytes, now)
	}
}
