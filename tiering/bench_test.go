package tiering_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// benchLog has one partition with sealed ranges of 8 MiB in batches of 64 KiB.
func benchLog(b *testing.B, ranges int) (*tiertest.Bench, int64) {
	b.Helper()
	rnd := rand.New(rand.NewPCG(1, 1))
	batch, err := record.Build(record.BuildHeader{ProducerID: base.NoProducerID, ProducerEpoch: -1, BaseSequence: -1}, benchRecords(rnd))
	if err != nil {
		b.Fatal(err)
	}
	return tiertest.NewBench(batch, ranges, 128), int64(ranges) * 128 * int64(len(batch))
}

func benchRecords(rnd *rand.Rand) []record.Record {
	recs := make([]record.Record, 64)
	for i := range recs {
		v := make([]byte, 1000)
		for j := range v {
			v[j] = byte(rnd.Uint32())
		}
		recs[i] = record.Record{Offset: base.Offset(i), Timestamp: 1_700_000_000_000, Value: v}
	}
	return recs
}

func newBenchTiering(b *testing.B, bench *tiertest.Bench) (*tiering.Tiering, *mem.Bucket) {
	b.Helper()
	bucket := mem.New(mem.Options{})
	c, err := cache.New(bucket, cache.Options{MemoryBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	t, err := tiering.New(tiering.Options{Bucket: bucket, Cache: c, Meta: bench, Source: bench, BrokerID: 1})
	if err != nil {
		b.Fatal(err)
	}
	return t, bucket
}

// BenchmarkArchive is the cost of a byte from sealed to committed, without disk and network.
func BenchmarkArchive(b *testing.B) {
	bench, total := benchLog(b, 16)
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		bench.Reset()
		t, _ := newBenchTiering(b, bench)
		for bench.Left() > 0 {
			if _, err := t.RunOnce(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkColdRead is the cost of a byte from the block cache to the batches.
func BenchmarkColdRead(b *testing.B) {
	bench, total := benchLog(b, 16)
	t, _ := newBenchTiering(b, bench)
	for bench.Left() > 0 {
		if _, err := t.RunOnce(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	bounds, _ := t.Reader().Bounds(1)
	read := func() {
		for at := bounds.Start; at < bounds.End; {
			batches, err := t.Reader().Read(context.Background(), 1, at, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			at = batches[len(batches)-1].NextOffset()
		}
	}
	read()
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
}
