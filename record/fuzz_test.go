package record

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

// fuzzInflated bounds decompression while fuzzing, fuzzMemory what one input may allocate: the pooled buffers and a zstd
// window of the size allowed, whatever the input's size fields say.
const (
	fuzzInflated = 1 << 20
	fuzzMemory   = 2*maxZstdWindow + 64<<20
)

// seed adds the golden batches, one of each codec of ours, and some damage.
func seed(f *testing.F) {
	f.Helper()
	for _, name := range goldenFiles(f) {
		buf, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(buf)
		f.Add(buf[:len(buf)-7])
		f.Add(append(bytes.Clone(buf), buf...))
	}
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		f.Add(probeBatch().with(func(r *raw) { r.attributes = uint16(codec) }))
		f.Add(probeBatch().with(func(r *raw) { r.attributes, r.deltas = uint16(codec), []int32{3, 1} }))
	}
}

// within fails where fn allocates beyond the bound, which a believed size field would.
func within(t *testing.T, fn func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > fuzzMemory {
		t.Errorf("%d bytes allocated", used)
	}
}

func FuzzSplit(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, buf []byte) {
		for rest := buf; len(rest) > 0; {
			b, next, err := Split(rest)
			if err != nil {
				if !base.IsCorruption(err) {
					t.Errorf("not marked: %v", err)
				}
				return
			}
			if len(b)+len(next) != len(rest) || len(b) < HeaderSize {
				t.Fatalf("%d + %d of %d bytes", len(b), len(next), len(rest))
			}
			_, _ = b.CheckCRC(), b.LastSequence()
			rest = next
		}
	})
}

func FuzzPrepare(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, buf []byte) {
		if len(buf) > HeaderSize && buf[0]&1 == 0 { // most inputs would die at the CRC, which the fuzzer cannot guess
			Batch(buf).setCRC()
		}
		for _, target := range []Codec{CodecProducer, CodecNone, CodecZstd} {
			p := topic().with(func(p *Policy) {
				p.Compression, p.MaxInflatedBytes, p.LogAppendTime = target, fuzzInflated, target == CodecNone
			})
			var b Batch
			var err error
			input := bytes.Clone(buf)
			within(t, func() { b, err = Prepare(input, &p) })
			if err == nil {
				checkPrepared(t, b, &p)
			} else if v := new(InvalidError); !errors.As(err, &v) {
				t.Errorf("%T: %v", err, err)
			}
		}
	})
}

func FuzzEach(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, buf []byte) {
		b, _, err := Split(buf)
		if err != nil {
			return
		}
		var records []Record
		within(t, func() {
			err = b.decode(fuzzInflated, func(r Record) bool { records = append(records, r); return true })
		})
		if err != nil {
			if !base.IsCorruption(err) {
				t.Errorf("not marked: %v", err)
			}
			return
		}
		if int32(len(records)) != max(b.Count(), 0) {
			t.Errorf("%d records of %d", len(records), b.Count())
		}
		checkFinds(t, b, records)
	})
}

// checkFinds compares the look-ups with a plain search.
func checkFinds(t *testing.T, b Batch, records []Record) {
	t.Helper()
	for _, r := range records[:min(len(records), 20)] {
		want, found := Record{}, false
		for _, x := range records {
			if x.Timestamp >= r.Timestamp {
				want, found = x, b.MaxTimestamp() >= r.Timestamp
				break
			}
		}
		off, ms, ok, err := b.FindTime(r.Timestamp)
		if err != nil || ok != found || ok && (off != want.Offset || ms != want.Timestamp) {
			t.Errorf("FindTime(%d) = %d %d %t %v, want %d", r.Timestamp, off, ms, ok, err, want.Offset)
		}
	}
	wantOff := base.NoOffset
	for _, x := range records {
		if x.Timestamp == b.MaxTimestamp() {
			wantOff = x.Offset
			break
		}
	}
	if off, _, err := b.MaxTimestampRecord(); err != nil || off != wantOff {
		t.Errorf("MaxTimestampRecord = %d %v, want %d", off, err, wantOff)
	}
}
