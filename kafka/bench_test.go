package kafka

import (
	"context"
	"io"
	"testing"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// instantIngest accepts everything at once and keeps nothing.
type instantIngest struct {
	*fakeIngest
	done chan struct{}
}

func (f *instantIngest) Confirm(context.Context, base.TopicPartition) error { return nil }

func (f *instantIngest) Append(_ context.Context, _ int16, _ int32, reqs []ingest.AppendRequest) receipt {
	return &fakeReceipt{done: f.done, results: make([]ingest.AppendResult, len(reqs))}
}

// instantFetch answers every partition with the same batches.
type instantFetch struct {
	*fakeFetch
	batches []record.Batch
}

func (f *instantFetch) Fetch(_ context.Context, r *fetch.Request) []fetch.PartitionResponse {
	out := make([]fetch.PartitionResponse, len(r.Partitions))
	for i := range out {
		out[i] = fetch.PartitionResponse{HighWatermark: 100, LastStable: 100, Preferred: -1, Batches: f.batches}
	}
	return out
}

// BenchmarkProduce: 16 KiB batches, pipelined, over the loopback; the client's own cost is included.
func BenchmarkProduce(b *testing.B) {
	e := newEdge(b, nil)
	done := make(chan struct{})
	close(done)
	e.s.deps.ingest = &instantIngest{e.ingest, done}
	topic := e.topic("t", 1, nil)
	p := e.dial()
	frame := p.encode(produceRequest(13, topic.ID, "", -1, make([]byte, 16<<10)))
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := p.nc.Write(frame); err != nil {
				return
			}
		}
	}()
	for range b.N {
		if _, _, err := p.receive(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFetch: answers of 1 MiB in batches of 16 KiB, one at a time; the client's own cost is included.
func BenchmarkFetch(b *testing.B) {
	e := newEdge(b, nil)
	batches := make([]record.Batch, 64)
	for i := range batches {
		batches[i] = make([]byte, 16<<10)
	}
	e.s.deps.fetch = &instantFetch{e.fetch, batches}
	topic := e.topic("t", 1, nil)
	p := e.dial()
	r := fetchRequest(13, topic.ID, "", 0)
	r.SessionEpoch = -1
	frame := p.encode(r)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.write(frame)
		var head [4]byte
		if _, err := io.ReadFull(p.nc, head[:]); err != nil {
			b.Fatal(err)
		}
		n := int64(head[0])<<24 | int64(head[1])<<16 | int64(head[2])<<8 | int64(head[3])
		if _, err := io.CopyN(io.Discard, p.nc, n); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSmallRequests: one heartbeat after the other.
func BenchmarkSmallRequests(b *testing.B) {
	e := newEdge(b, nil)
	p := e.dial()
	frame := p.encode(findRequest())
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.write(frame)
		if _, _, err := p.receive(); err != nil {
			b.Fatal(err)
		}
	}
}
