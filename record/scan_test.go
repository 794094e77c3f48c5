package record

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/varvelog/varve/internal/base"
)

// TestStreamingAgreesWithInPlace reads the same bytes, whole and damaged, in place and through tiny windows: both must
// accept the same records with the same fields.
func TestStreamingAgreesWithInPlace(t *testing.T) {
	for seed := range uint64(1500) {
		rng := rand.New(rand.NewPCG(seed, 3))
		records := randomRecords(rng, 0, false)
		records = records[:min(len(records), 3)]
		var buf []byte
		for i := range records {
			records[i].Value = records[i].Value[:min(len(records[i].Value), 300)]
			buf = appendRecord(buf, &records[i], base.Offset(i), records[i].Timestamp)
		}
		switch seed % 3 {
		case 1:
			buf[rng.IntN(min(len(buf), 400))] ^= 1 << rng.IntN(8)
		case 2:
			buf = buf[:rng.IntN(len(buf))]
		}
		var src io.Reader = bytes.NewReader(buf)
		if seed%2 == 0 {
			src = iotest.OneByteReader(src)
		}
		inPlace := scanner{buf: buf}
		stream := scanner{buf: make([]byte, 0, 16+rng.IntN(64)), src: src, left: len(buf)}
		compareScans(t, seed, &inPlace, &stream, len(records))
	}
}

func compareScans(t *testing.T, seed uint64, a, b *scanner, count int) {
	t.Helper()
	for i := range count {
		var fa, fb fields
		errA, errB := a.next(&fa), b.next(&fb)
		if (errA == nil) != (errB == nil) {
			t.Fatalf("seed %d, record %d: in place %v, streaming %v", seed, i, errA, errB)
		}
		if errA != nil {
			return
		}
		if fa.tsDelta != fb.tsDelta || fa.offsetDelta != fb.offsetDelta || fa.keyLen != fb.keyLen || fa.valueLen != fb.valueLen || fa.headerCount != fb.headerCount {
			t.Fatalf("seed %d, record %d: in place %+v, streaming %+v", seed, i, fa, fb)
		}
	}
	if errA, errB := a.finish(), b.finish(); errA != errB {
		t.Fatalf("seed %d: at the end in place %v, streaming %v", seed, errA, errB)
	}
}

// A size in front of nothing must end the walk, not the process.
func TestScannerStopsAtItsBound(t *testing.T) {
	s := scanner{buf: make([]byte, 0, 64), src: iotest.ErrReader(nil), left: 1 << 20}
	if err := s.next(new(fields)); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
	endless := appendRecord(nil, &Record{Value: make([]byte, 1000)}, 0, 0)
	s = scanner{buf: make([]byte, 0, 64), src: bytes.NewReader(endless), left: 500}
	if err := s.next(new(fields)); err != errInflated {
		t.Errorf("got %v", err)
	}
}
