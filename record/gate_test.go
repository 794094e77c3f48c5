package record

import (
	"bytes"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// TestLargeBatchesGoOneByOne occupies the place of large batches: what needs a large window, or much memory to be compressed
// anew, waits for it without a place among the usual ones, which go on.
func TestLargeBatchesGoOneByOne(t *testing.T) {
	long := probeBatch().with(func(r *raw) { r.n, r.valueSize = 1, 20<<20 })
	payload := Batch(long).payload()
	var wide bytes.Buffer
	w, err := zstd.NewWriter(&wide, zstd.WithWindowSize(16<<20), zstd.WithEncoderConcurrency(1))
	if err == nil {
		_, err = w.Write(payload)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	window := probeBatch().with(func(r *raw) {
		r.n, r.count, r.skipDerivedHeaders, r.attributes, r.records = 0, 1, true, uint16(CodecZstd), wide.Bytes()
	})
	gzipped := probeBatch().with(func(r *raw) { r.n, r.valueSize, r.attributes = 1, 20<<20, uint16(CodecGzip) })
	small := probeBatch().with(func(r *raw) { r.attributes = uint16(CodecGzip) })
	policy := func(c Codec) *Policy {
		p := topic()
		p.MaxMessageBytes, p.SegmentBytes, p.Compression = 0, 0, c
		return &p
	}

	decompressions.large <- struct{}{}
	done := make(chan error, 2)
	go func() { _, err := Prepare(window, policy(CodecProducer)); done <- err }()
	go func() { _, err := Prepare(gzipped, policy(CodecLZ4)); done <- err }()
	for range 20 {
		if _, err := Prepare(small, policy(CodecProducer)); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for len(decompressions.usual) > 0 { // both have begun, or not yet, and wait
		if time.Now().After(deadline) {
			t.Fatal("a large batch that waits keeps a usual place")
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatalf("a large batch did not wait for its place (%v)", err)
	default:
	}
	<-decompressions.large
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if now, _, _ := Decompressions(); now != 0 {
		t.Errorf("%d places are still taken", now)
	}
}
