package record

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

// benchBatch is a client's batch of n records with 8-byte keys and values of size bytes, which compress by about half.
func benchBatch(tb testing.TB, codec Codec, n, size int) Batch {
	tb.Helper()
	records := make([]Record, n)
	x := uint32(1)
	for i := range records {
		value := make([]byte, size)
		for j := range value {
			x = x*1103515245 + 12345
			value[j] = 'a' + byte(x>>28)
		}
		records[i] = Record{Offset: base.Offset(i), Timestamp: probeMs + int64(i), Key: fmt.Appendf(nil, "key-%04d", i), Value: value}
	}
	b, err := Build(BuildHeader{LeaderEpoch: -1, Codec: codec, ProducerID: 1, BaseSequence: 0}, records)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestUncompressedPathAllocatesNothing(t *testing.T) {
	p := topic()
	for _, buf := range []Batch{benchBatch(t, CodecNone, 16, 1024), benchBatch(t, CodecNone, 1000, 100)} {
		if got := testing.AllocsPerRun(100, func() {
			if _, err := Prepare(buf, &p); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("%v allocations for %d bytes", got, len(buf))
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	for _, shape := range []struct{ n, size int }{{16, 1024}, {1000, 100}} {
		for codec := CodecNone; codec <= CodecZstd; codec++ {
			b.Run(fmt.Sprintf("%dx%d/%s", shape.n, shape.size, codec), func(b *testing.B) {
				buf, p := benchBatch(b, codec, shape.n, shape.size), topic()
				b.SetBytes(int64(shape.n * shape.size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Prepare(buf, &p); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkPrepareToZstd is an uncompressed producer on a topic with compression.type=zstd.
func BenchmarkPrepareToZstd(b *testing.B) {
	buf, p := benchBatch(b, CodecNone, 1000, 100), topic()
	p.Compression = CodecZstd
	b.SetBytes(100000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Prepare(buf, &p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckCRC(b *testing.B) {
	buf := benchBatch(b, CodecNone, 16, 1024)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if err := buf.CheckCRC(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEach(b *testing.B) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		b.Run(codec.String(), func(b *testing.B) {
			buf := benchBatch(b, codec, 1000, 100)
			b.SetBytes(100000)
			b.ReportAllocs()
			for b.Loop() {
				if err := buf.Each(func(Record) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFindTime(b *testing.B) {
	buf := benchBatch(b, CodecZstd, 1000, 100)
	b.ReportAllocs()
	for b.Loop() {
		if off, _, ok, err := buf.FindTime(probeMs + 500); off != 500 || !ok || err != nil {
			b.Fatal(off, ok, err)
		}
	}
}

// A bomb costs the window and the bound, not what it claims to hold.
func TestBombIsBounded(t *testing.T) {
	for codec := CodecGzip; codec <= CodecZstd; codec++ {
		b, err := Build(BuildHeader{Codec: codec, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LeaderEpoch: -1},
			[]Record{{Timestamp: probeMs, Value: make([]byte, 20<<20)}})
		if err != nil {
			t.Fatal(err)
		}
		p := topic()
		p.MaxMessageBytes, p.MaxInflatedBytes = 16<<20, 4<<20
		if _, err := Prepare(bytes.Clone(b), &p); answer(err).ErrorCode != 10 {
			t.Errorf("%s: %d bytes, %v", codec, len(b), err)
		}
		p.MaxInflatedBytes = 0
		if _, err := Prepare(bytes.Clone(b), &p); err != nil {
			t.Errorf("%s: %v", codec, err)
		}
	}
}

// A broken batch of a few bytes that claims zstd's largest window must not be given one.
func TestBrokenZstdGetsNoWindow(t *testing.T) {
	b := bytes.Clone(golden(t, "zstd22"))
	b[len(b)-20] ^= 0xff
	Batch(b).setCRC()
	p := topic()
	if _, err := Prepare(b, &p); answer(err).ErrorCode != -1 {
		t.Fatalf("got %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if _, err := Prepare(b, &p); err == nil {
			t.Fatal("accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%d bytes allocated for 10 batches of %d", used, len(b))
	}
}
