package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
)

// randomRecords makes records as varied as the format allows; offsets ascend from first, with gaps where asked.
func randomRecords(rng *rand.Rand, first base.Offset, gaps bool) []Record {
	blob := func(limit int) []byte {
		if rng.IntN(4) == 0 {
			return nil
		}
		b := make([]byte, rng.IntN(limit))
		for i := range b {
			b[i] = "abcdefgh"[rng.IntN(8)]
		}
		return b
	}
	out := make([]Record, 1+rng.IntN(60))
	offset := first
	for i := range out {
		out[i] = Record{Offset: offset, Timestamp: 1700000000000 + rng.Int64N(1<<34) - 1<<33, Key: blob(20), Value: blob(1 << rng.IntN(17))}
		for range rng.IntN(3) * rng.IntN(3) {
			out[i].Headers = append(out[i].Headers, Header{Key: string(blob(9)), Value: blob(300)})
		}
		offset++
		if gaps {
			offset += base.Offset(rng.IntN(100))
		}
	}
	return out
}

// decodeFranz reads a batch as a franz-go consumer does.
func decodeFranz(t *testing.T, b Batch) []Record {
	t.Helper()
	in := kmsg.NewFetchResponseTopicPartition()
	in.RecordBatches = b
	in.HighWatermark = 1 << 62
	fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{KeepControlRecords: true}, &in, kgo.DefaultDecompressor(), nil)
	if fp.Err != nil {
		t.Fatalf("%s: %v", b.Codec(), fp.Err)
	}
	var out []Record
	for _, r := range fp.Records {
		x := Record{Offset: base.Offset(r.Offset), Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			x.Headers = append(x.Headers, Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, x)
	}
	return out
}

func TestFranzReadsWhatWeBuild(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		records := randomRecords(rng, base.Offset(rng.Int64N(1<<40)), seed%2 == 0)
		h := BuildHeader{
			LeaderEpoch: base.LeaderEpoch(rng.Int32()), Codec: Codec(rng.IntN(5)), Level: rng.IntN(12),
			Transactional: rng.IntN(2) == 0, ProducerID: base.ProducerID(rng.Int64()), ProducerEpoch: int16(rng.IntN(1 << 15)), BaseSequence: rng.Int32(),
		}
		b, err := Build(h, records)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		if got := decodeFranz(t, b); !reflect.DeepEqual(got, records) {
			t.Fatalf("seed %d, %s: franz-go reads other records than were built", seed, h.Codec)
		}
		var back []Record
		if err := b.Each(func(r Record) bool { back = append(back, r); return true }); err != nil || !reflect.DeepEqual(back, records) {
			t.Fatalf("seed %d, %s: Each gives other records than were built: %v", seed, h.Codec, err)
		}
		checkFinds(t, b, records)
		checkHeader(t, b, h, records)
	}
}

// checkHeader compares the accessors with kmsg's decoding of the header.
func checkHeader(t *testing.T, b Batch, h BuildHeader, records []Record) {
	t.Helper()
	var k kmsg.RecordBatch
	if err := k.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(b.BaseOffset(), b.LeaderEpoch(), b.attributes(), b.lastDelta(), b.BaseTimestamp(), b.MaxTimestamp(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.Count())
	want := fmt.Sprint(k.FirstOffset, k.PartitionLeaderEpoch, k.Attributes, k.LastOffsetDelta, k.FirstTimestamp, k.MaxTimestamp, k.ProducerID, k.ProducerEpoch, k.FirstSequence, k.NumRecords)
	if got != want {
		t.Errorf("header %s, kmsg has %s", got, want)
	}
	if b.Codec() != h.Codec || b.IsTransactional() != h.Transactional || b.LeaderEpoch() != h.LeaderEpoch || b.ProducerID() != h.ProducerID ||
		b.ProducerEpoch() != h.ProducerEpoch || b.BaseSequence() != h.BaseSequence || b.LastOffset() != records[len(records)-1].Offset {
		t.Errorf("header %s of %+v", got, h)
	}
}

// encodeFranz writes a batch with franz-go's encoders, as its producer does.
func encodeFranz(t *testing.T, codec Codec, records []Record) []byte {
	t.Helper()
	var payload []byte
	first, maxMs := records[0].Timestamp, NoTimestamp
	for i, r := range records {
		k := kmsg.Record{TimestampDelta64: r.Timestamp - first, OffsetDelta: int32(i), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		k.Length = int32(len(k.AppendTo(nil)) - 1) // of which one byte is the length 0
		payload = k.AppendTo(payload)
		maxMs = max(maxMs, r.Timestamp)
	}
	if codec != CodecNone {
		c, err := kgo.DefaultCompressor([]kgo.CompressionCodec{
			CodecGzip: kgo.GzipCompression(), CodecSnappy: kgo.SnappyCompression(), CodecLZ4: kgo.Lz4Compression(), CodecZstd: kgo.ZstdCompression(),
		}[codec])
		if err != nil {
			t.Fatal(err)
		}
		payload, _ = c.Compress(new(bytes.Buffer), payload)
	}
	b := kmsg.RecordBatch{
		Length: int32(HeaderSize - lengthOverhead + len(payload)), PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16(codec),
		LastOffsetDelta: int32(len(records)) - 1, FirstTimestamp: first, MaxTimestamp: maxMs,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(records)), Records: payload,
	}
	buf := b.AppendTo(nil)
	binary.BigEndian.PutUint32(buf[posCRC:], Batch(buf).computeCRC())
	return buf
}

func TestReadsWhatFranzBuilds(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		records, codec := randomRecords(rng, 0, false), Codec(seed%5)
		buf := encodeFranz(t, codec, records)
		p := Policy{Compression: CodecProducer, ZstdAllowed: true, BeforeMaxMs: 1 << 62, AfterMaxMs: 1 << 62, NowMs: probeMs}
		b, err := Prepare(bytes.Clone(buf), &p)
		if err != nil {
			t.Fatalf("seed %d, %s: %v", seed, codec, err)
		}
		if !bytes.Equal(b, buf) {
			t.Errorf("seed %d, %s: the batch was changed", seed, codec)
		}
		var back []Record
		if err := b.Each(func(r Record) bool { back = append(back, r); return true }); err != nil || !reflect.DeepEqual(back, records) {
			t.Fatalf("seed %d, %s: other records than were built: %v", seed, codec, err)
		}
		re, err := Recompress(b, CodecZstd, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeFranz(t, re); !reflect.DeepEqual(got, records) {
			t.Fatalf("seed %d, %s: recompressed records differ", seed, codec)
		}
		// A recompressed batch differs in nothing but its length, CRC and codec.
		a, z := bytes.Clone(b[:HeaderSize]), bytes.Clone(re[:HeaderSize])
		for _, h := range []Batch{a, z} {
			copy(h[posLength:], make([]byte, 4))
			copy(h[posCRC:], make([]byte, 6))
		}
		if !bytes.Equal(a, z) {
			t.Errorf("seed %d: header\n%x\n%x", seed, a, z)
		}
	}
}
