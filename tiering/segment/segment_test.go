package segment_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/segment"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

var identity = segment.Identity{
	Log: 42, TopicID: base.TopicID{1, 2, 3}, TP: base.TopicPartition{Topic: "orders", Partition: 7},
	Base: 100, LeaderEpoch: 5, CreatedMs: 1_700_000_000_000,
}

var layout = segment.Layout{BlockBytes: 256, IndexBytes: 200}

func batches(t testing.TB, at base.Offset, n int) []record.Batch {
	t.Helper()
	var out []record.Batch
	for i := range n {
		recs := []record.Record{
			{Offset: at, Timestamp: 1000 + int64(i%4)*100, Key: []byte("k"), Value: bytes.Repeat([]byte{byte(i)}, 40)},
			{Offset: at + 1, Timestamp: 1005 + int64(i%4)*100, Value: []byte("v")},
		}
		b, err := record.Build(record.BuildHeader{LeaderEpoch: 5, ProducerID: base.NoProducerID, ProducerEpoch: -1, BaseSequence: -1}, recs)
		if err != nil {
			t.Fatal(err)
		}
		out, at = append(out, b), at+2
	}
	return out
}

func build(t testing.TB, buf []byte, id segment.Identity, bs []record.Batch, tail segment.Tail) ([]byte, segment.Built) {
	t.Helper()
	b := segment.NewBuilder(buf, id, layout)
	for _, x := range bs {
		if err := b.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	data, built, err := b.Finish(tail)
	if err != nil {
		t.Fatal(err)
	}
	return data, built
}

var tail = segment.Tail{
	End:       base.NoOffset,
	Epochs:    []base.EpochStart{{Epoch: 3, Start: 0}, {Epoch: 5, Start: 90}, {Epoch: 9, Start: 100_000}},
	Aborted:   []segment.AbortedTxn{{ProducerID: 8, FirstOffset: 101, LastOffset: 105}},
	Producers: []byte("producers"),
}

func TestBuildAndCheck(t *testing.T) {
	bs := batches(t, 100, 20)
	data, built := build(t, nil, identity, bs, tail)
	f, err := segment.Check(data)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(f) != fmt.Sprint(built.Footer) {
		t.Errorf("decoded footer %+v\nwant %+v", f, built.Footer)
	}
	if f.Base != 100 || f.End != 140 || f.MaxTimestamp != 1305 || len(f.Epochs) != 2 || len(f.Aborted) != 1 || string(f.Producers) != "producers" {
		t.Errorf("footer %+v", f)
	}
	if len(f.Index) < 4 || len(f.BlockCRCs) < 4 {
		t.Errorf("%d index marks, %d blocks", len(f.Index), len(f.BlockCRCs))
	}
	if !bytes.Equal(data[:f.BodyBytes], bytes.Join(toBytes(bs), nil)) {
		t.Error("the body is not the batches as they were")
	}
	for o := f.Base; o < f.End; o++ {
		i := f.Locate(o)
		b, _, err := record.Split(data[f.Index[i].Position:])
		if err != nil || b.BaseOffset() != f.Index[i].Offset || f.Index[i].Offset > o || i+1 < len(f.Index) && f.Index[i+1].Offset <= o {
			t.Errorf("offset %d: mark %d %+v, batch %d, %v", o, i, f.Index[i], b.BaseOffset(), err)
		}
	}
	if i, ok := f.LocateTime(1300); !ok || f.Index[i].MaxTimestamp < 1300 || i > 0 && f.Index[i-1].MaxTimestamp >= 1300 {
		t.Errorf("time 1300: mark %d %v", i, ok)
	}
	if _, ok := f.LocateTime(1306); ok {
		t.Error("time 1306 found")
	}
}

func toBytes(bs []record.Batch) (out [][]byte) {
	for _, b := range bs {
		out = append(out, b)
	}
	return out
}

// TestEveryFlippedBitIsFound flips one bit of each byte.
func TestEveryFlippedBitIsFound(t *testing.T) {
	data, _ := build(t, nil, identity, batches(t, 100, 6), tail)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, err := segment.Check(bad); !base.IsCorruption(err) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for n := range data {
		if _, err := segment.Check(data[:n]); err == nil {
			t.Fatalf("cut at %d: no error", n)
		}
	}
}

func TestFooterNeedsTail(t *testing.T) {
	data, built := build(t, nil, identity, batches(t, 100, 6), tail)
	var need *segment.NeedTail
	_, err := segment.ParseFooter(data[len(data)-segment.TrailerSize:])
	if !errors.As(err, &need) || need.Bytes != built.Footer.FooterBytes {
		t.Fatalf("%v, want %d bytes", err, built.Footer.FooterBytes)
	}
	if _, err := segment.ParseFooter(data[int64(len(data))-need.Bytes:]); err != nil {
		t.Fatal(err)
	}
}

func TestBuilderRefusesDisorder(t *testing.T) {
	bs := batches(t, 100, 2)
	b := segment.NewBuilder(nil, identity, layout)
	if _, _, err := b.Finish(tail); err == nil {
		t.Error("a segment without batches was built")
	}
	if err := b.Add(bs[1]); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(bs[0]); err == nil {
		t.Error("batches out of order were taken")
	}
	if err := segment.NewBuilder(nil, segment.Identity{Base: 101}, layout).Add(bs[0]); err == nil {
		t.Error("a batch below the base was taken")
	}
	if _, _, err := b.Finish(segment.Tail{End: 103}); err == nil {
		t.Error("a segment that ends before its batches was built")
	}
}

func pack(t testing.TB) []byte {
	first, a := build(t, nil, identity, batches(t, 100, 3), tail)
	other := identity
	other.Log, other.TP.Partition, other.Base = 43, 8, 500
	both, b := build(t, first, other, batches(t, 500, 2), tail)
	return segment.AppendDirectory(both, segment.PackSegments, []segment.Part{
		{Log: 42, Pos: a.Pos, Len: a.Len, CRC32C: a.CRC32C, First: 100, Last: 106},
		{Log: 43, Pos: b.Pos, Len: b.Len, CRC32C: b.CRC32C, First: 500, Last: 504},
	})
}

func TestPack(t *testing.T) {
	data := pack(t)
	kind, parts, err := segment.ParseDirectory(data[len(data)-200:])
	var need *segment.NeedTail
	if errors.As(err, &need) {
		kind, parts, err = segment.ParseDirectory(data[int64(len(data))-need.Bytes:])
	}
	if err != nil || kind != segment.PackSegments || len(parts) != 2 || !segment.IsPack(data) {
		t.Fatalf("kind %d, parts %+v, %v", kind, parts, err)
	}
	for _, p := range parts {
		f, err := segment.Check(data[p.Pos : p.Pos+p.Len])
		if err != nil || f.Log != p.Log || int64(f.Base) != p.First || int64(f.End) != p.Last {
			t.Errorf("part %+v: %+v %v", p, f, err)
		}
	}
	for i := len(data) - int(segment.PackTrailerSize) - 40; i < len(data); i++ {
		bad := bytes.Clone(data)
		bad[i] ^= 16
		if _, _, err := segment.ParseDirectory(bad); !base.IsCorruption(err) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

// TestGolden keeps version 1 readable for ever: these files were written by the first release.
func TestGolden(t *testing.T) {
	single, _ := build(t, nil, identity, batches(t, 100, 6), tail)
	for name, data := range map[string][]byte{"v1.seg": single, "v1.pack": pack(t)} {
		path := filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s changed: a new format needs a new version", name)
		}
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "v1.seg"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Check(golden); err != nil {
		t.Error(err)
	}
}

func FuzzFooter(f *testing.F) {
	data, built := build(f, nil, identity, batches(f, 100, 6), tail)
	f.Add(data[built.Footer.BodyBytes:])
	f.Add(data[len(data)-segment.TrailerSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		footer, err := segment.ParseFooter(segment.Reseal(b))
		if err != nil {
			return
		}
		for _, o := range []base.Offset{footer.Base, footer.End - 1, (footer.Base + footer.End) / 2} {
			if i := footer.Locate(o); i < 0 || i >= len(footer.Index) || footer.StretchEnd(i) > footer.BodyBytes {
				t.Fatalf("locate %d: %d", o, i)
			}
		}
		footer.LocateTime(footer.MaxTimestamp)
	})
}

func FuzzDirectory(f *testing.F) {
	f.Add(pack(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, parts, err := segment.ParseDirectory(b)
		for _, p := range parts {
			if err == nil && (p.Pos < 0 || p.Len <= 0 || p.Pos+p.Len < 0) {
				t.Fatalf("part %+v", p)
			}
		}
	})
}

func FuzzCheck(f *testing.F) {
	data, _ := build(f, nil, identity, batches(f, 100, 3), tail)
	f.Add(data)
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = segment.Check(b) })
}
