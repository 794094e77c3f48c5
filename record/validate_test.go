package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// The clock of the probe when it asked the real broker: producer's, then broker's.
const (
	probeMs  = 1795224452106
	brokerMs = 1795224452113
)

// raw writes batches that Build would not: every header field is free, the CRC right unless broken afterwards.
type raw struct {
	offset             int64
	attributes         uint16
	lastDelta, count   int32
	firstMs, maxMs     int64
	pid                int64
	epoch              int16
	sequence           int32
	records            []byte
	deltas             []int32
	nullKey            bool
	valueSize, n       int
	tsDeltas           []int64
	magic              byte
	skipDerivedHeaders bool // lastDelta and count as given
}

func probeBatch() raw {
	return raw{firstMs: probeMs, maxMs: probeMs, pid: -1, epoch: -1, sequence: -1, n: 2, valueSize: 1, magic: 2}
}

func (r raw) bytes() []byte {
	records := r.records
	for i := range r.n {
		rec := Record{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), r.valueSize)}
		if r.nullKey {
			rec.Key = nil
		}
		delta, tsDelta := int32(i), int64(0)
		if r.deltas != nil {
			delta = r.deltas[i]
		}
		if r.tsDeltas != nil {
			tsDelta = r.tsDeltas[i]
		}
		records = appendRecord(records, &rec, base.Offset(delta), tsDelta)
	}
	if codec := Codec(r.attributes & attrCodec); codec <= CodecZstd && r.records == nil {
		records, _ = compress(nil, codec, 0, records)
	}
	if !r.skipDerivedHeaders {
		r.count, r.lastDelta = int32(r.n), int32(r.n)-1
	}
	b := make(Batch, HeaderSize, HeaderSize+len(records))
	b = append(b, records...)
	b.SetBaseOffset(base.Offset(r.offset))
	b.SetLeaderEpoch(-1)
	b[posMagic] = r.magic
	b.setAttributes(r.attributes)
	binary.BigEndian.PutUint32(b[posLastDelta:], uint32(r.lastDelta))
	binary.BigEndian.PutUint64(b[posBaseTimestamp:], uint64(r.firstMs))
	b.setMaxTimestamp(r.maxMs)
	binary.BigEndian.PutUint64(b[posProducerID:], uint64(r.pid))
	binary.BigEndian.PutUint16(b[posProducerEpoch:], uint16(r.epoch))
	binary.BigEndian.PutUint32(b[posBaseSequence:], uint32(r.sequence))
	binary.BigEndian.PutUint32(b[posCount:], uint32(r.count))
	b.setLength()
	b.setCRC()
	return b
}

func (r raw) with(change func(*raw)) []byte { change(&r); return r.bytes() }

// topic is the policy of a topic with Kafka's defaults.
func topic() Policy {
	return Policy{
		MaxMessageBytes: 1048588, SegmentBytes: 1 << 30, BeforeMaxMs: math.MaxInt64, AfterMaxMs: 3600000,
		Compression: CodecProducer, ZstdAllowed: true, NowMs: brokerMs,
	}
}

func (p Policy) with(change func(*Policy)) Policy { change(&p); return p }

// brokerAnswer is what testdata/produce_validation.txt (facts/protocol/probe) says of one partition.
type brokerAnswer struct {
	ErrorCode    int16
	LogStart     int64 `json:"LogStartOffset"`
	ErrorRecords []struct {
		RelativeOffset int32
		ErrorMessage   string
	}
	ErrorMessage string
}

func brokerAnswers(t *testing.T) map[string]brokerAnswer {
	t.Helper()
	text, err := os.ReadFile("testdata/produce_validation.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]brokerAnswer{}
	for line := range strings.Lines(string(text)) {
		var partitions []brokerAnswer
		if err := json.Unmarshal([]byte(line[60:]), &partitions); err != nil || len(partitions) != 1 {
			t.Fatalf("%s: %v", line, err)
		}
		out[strings.TrimSpace(line[:60])] = partitions[0]
	}
	return out
}

// answer is what a Produce response would say of err.
func answer(err error) brokerAnswer {
	var a brokerAnswer
	if err == nil {
		return a
	}
	var invalid *InvalidError
	var code *kerr.Error
	if !errors.As(err, &invalid) || !errors.As(err, &code) || base.IsCorruption(err) {
		return brokerAnswer{ErrorCode: -999, ErrorMessage: err.Error()}
	}
	a.ErrorCode, a.ErrorMessage = code.Code, invalid.Message
	if !invalid.WithLogStart {
		a.LogStart = -1
	}
	for _, r := range invalid.Records {
		a.ErrorRecords = append(a.ErrorRecords, struct {
			RelativeOffset int32
			ErrorMessage   string
		}{r.Index, r.Message})
	}
	return a
}

// TestAnswersAsTheBroker replays the probe of a real Kafka 4.1 broker and compares codes, messages and record errors.
func TestAnswersAsTheBroker(t *testing.T) {
	ok, want := probeBatch(), brokerAnswers(t)
	lat := topic().with(func(p *Policy) { p.LogAppendTime = true })
	cmp := topic().with(func(p *Policy) {
		p.Compacted, p.TopicPartition = true, base.TopicPartition{Topic: "cmp"}
	})
	oldProduce := topic().with(func(p *Policy) { p.ZstdAllowed = false })
	badCRC := ok.bytes()
	badCRC[posCRC] ^= 1
	for _, c := range []struct {
		name   string
		policy Policy
		buf    []byte
	}{
		{"produce ok v9", topic(), ok.bytes()},
		{"bad crc", topic(), badCRC},
		{"baseOffset=5", topic(), ok.with(func(r *raw) { r.offset = 5 })},
		{"lastOffsetDelta mismatch", topic(), ok.with(func(r *raw) { r.skipDerivedHeaders, r.count, r.lastDelta = true, 2, 5 })},
		{"control batch from client", topic(), ok.with(func(r *raw) { r.attributes = attrControl })},
		{"LogAppendTime attr from client, CreateTime topic", topic(), ok.with(func(r *raw) { r.attributes = attrLogAppendTime })},
		{"ts +2h (after.max=1h)", topic(), ok.with(func(r *raw) { r.firstMs, r.maxMs = probeMs+7200000, probeMs+7200000 })},
		{"maxTS header lies (+50s)", topic(), ok.with(func(r *raw) { r.maxMs = probeMs + 50000 })},
		{"two batches in one partition", topic(), append(ok.bytes(), ok.bytes()...)},
		{"empty records", topic(), []byte{}},
		{"magic 1", topic(), ok.with(func(r *raw) { r.magic = 1 })},
		{"null key to compacted", cmp, ok.with(func(r *raw) { r.nullKey = true })},
		{"LAT topic", lat, ok.bytes()},
		{"LAT topic w/ LAT attr", lat, ok.with(func(r *raw) { r.attributes = attrLogAppendTime })},
		{"ts -1", topic(), ok.with(func(r *raw) { r.firstMs, r.maxMs = -1, -1 })},
		{"too large", topic(), ok.with(func(r *raw) { r.valueSize = 1100000 })},
		{"zstd attr with produce v6", oldProduce, ok.with(func(r *raw) { r.attributes = uint16(CodecZstd) })},
		{"zstd attr garbage v7", topic(), ok.with(func(r *raw) {
			r.attributes, r.skipDerivedHeaders, r.count, r.lastDelta, r.n, r.records = uint16(CodecZstd), true, 2, 1, 0, []byte("\x0e\x00\x00\x00\x02kv")
		})},
		{"truncated batch", topic(), ok.bytes()[:len(ok.bytes())-3]},
		{"batch + trailing garbage", topic(), append(ok.bytes(), 1, 2, 3, 4, 5)},
		{"idem: pid with seq -1", topic(), ok.with(func(r *raw) { r.pid, r.epoch = 1000, 1 })},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := Prepare(c.buf, &c.policy)
			got, want := answer(err), want[c.name]
			// The probe's producer id was -1 in that line (InitProducerId had failed), so the broker took the batch; 3.1 has 87.
			if c.name == "idem: pid with seq -1" {
				want.ErrorCode = kerr.InvalidRecord.Code
			}
			if want.ErrorCode == 0 {
				want.LogStart = 0
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %+v (%v)\nwant %+v", got, err, want)
			}
			if err == nil {
				checkPrepared(t, b, &c.policy)
			}
		})
	}
}

// checkPrepared checks what must hold of any batch that Prepare accepts.
func checkPrepared(t testing.TB, b Batch, p *Policy) {
	t.Helper()
	if err := b.CheckCRC(); err != nil {
		t.Error(err)
	}
	if s, rest, err := Split(b); err != nil || len(rest) != 0 || !bytes.Equal(s, b) {
		t.Errorf("not a batch: %v, %d bytes left", err, len(rest))
	}
	if b.IsLogAppendTime() != p.LogAppendTime {
		t.Errorf("LogAppendTime is %t", b.IsLogAppendTime())
	}
	first, next, maxMs := b.BaseOffset(), b.BaseOffset(), NoTimestamp
	err := b.decode(p.MaxInflatedBytes, func(r Record) bool {
		if r.Offset != next {
			t.Errorf("offset %d, want %d", r.Offset, next)
		}
		next, maxMs = next+1, max(maxMs, r.Timestamp)
		return true
	})
	if err != nil || next != b.NextOffset() || int32(next-first) != b.Count() {
		t.Errorf("%d records, next offset %d of %d: %v", b.Count(), next, b.NextOffset(), err)
	}
	if want := b.MaxTimestamp(); maxMs != want || p.LogAppendTime && want != p.NowMs {
		t.Errorf("max timestamp %d, records have %d", want, maxMs)
	}
}

// TestRefuses has the rows of facts/protocol.md 3.1 that the probe lacks.
func TestRefuses(t *testing.T) {
	ok := probeBatch()
	field := func(pos int, v ...byte) []byte {
		b := ok.bytes()
		copy(b[pos:], v)
		Batch(b).setCRC()
		return b
	}
	records := func(change func(rec []byte) []byte) []byte {
		return ok.with(func(r *raw) {
			rec := appendRecord(nil, &Record{Key: []byte("k"), Headers: []Header{{Key: "h"}}}, 0, 0)
			r.records, r.n, r.skipDerivedHeaders, r.count, r.lastDelta = change(rec), 0, true, 1, 0
		})
	}
	bomb := ok.with(func(r *raw) { r.attributes, r.n, r.valueSize = uint16(CodecZstd), 1, 3<<20 })
	for _, c := range []struct {
		name   string
		want   *kerr.Error
		buf    []byte
		change func(*Policy)
	}{
		{"null", kerr.InvalidRecord, nil, nil},
		{"negative length", kerr.CorruptMessage, field(posLength, 0xff, 0xff, 0xff, 0xff), nil},
		{"length below a header", kerr.CorruptMessage, field(posLength, 0, 0, 0, 40), nil},
		{"magic 3", kerr.CorruptMessage, field(posMagic, 3), nil},
		{"corrupt second batch", kerr.CorruptMessage, append(ok.bytes(), make([]byte, 30)...), nil},
		{"codec 5", kerr.UnsupportedCompressionType, ok.with(func(r *raw) { r.attributes, r.records = 5, []byte{1} }), nil},
		{"no records", kerr.InvalidRecord, ok.with(func(r *raw) { r.n = 0 }), nil},
		{"segment.bytes", kerr.RecordListTooLarge, ok.bytes(), func(p *Policy) { p.SegmentBytes = 50 }},
		{"offset deltas", kerr.InvalidRecord, ok.with(func(r *raw) { r.deltas = []int32{0, 2} }), nil},
		{"too old", kerr.InvalidTimestamp, ok.bytes(), func(p *Policy) { p.BeforeMaxMs = 6 }},
		{"extreme timestamp", kerr.InvalidTimestamp, ok.with(func(r *raw) { r.firstMs = math.MinInt64 }), nil},
		{"one record too new", kerr.InvalidTimestamp, ok.with(func(r *raw) { r.tsDeltas = []int64{0, 3600008} }), nil},
		{"null key in zstd", kerr.InvalidRecord, ok.with(func(r *raw) { r.nullKey, r.attributes = true, 4 }), func(p *Policy) { p.Compacted = true }},
		{"record cut short", kerr.InvalidRecord, records(func(r []byte) []byte { return r[:len(r)-1] }), nil},
		{"trailing byte", kerr.InvalidRecord, records(func(r []byte) []byte { return append(r, 0) }), nil},
		{"record too long", kerr.InvalidRecord, records(func(r []byte) []byte { r[0] += 2; return append(r, 0) }), nil},
		{"negative size", kerr.InvalidRecord, records(func(r []byte) []byte { r[0] = 1; return r }), nil},
		{"null header key", kerr.InvalidRecord, records(func(r []byte) []byte { r[len(r)-3] = 1; return r }), nil},
		{"million headers", kerr.InvalidRecord, records(func(r []byte) []byte { r[len(r)-4] = 126; return r }), nil},
		{"key beyond the record", kerr.InvalidRecord, records(func(r []byte) []byte { r[4] = 100; return r }), nil},
		{"bomb", kerr.MessageTooLarge, bomb, func(p *Policy) { p.MaxInflatedBytes = 2 << 20 }},
		{"bomb to recompress", kerr.MessageTooLarge, bomb, func(p *Policy) { p.MaxInflatedBytes, p.Compression = 2<<20, CodecGzip }},
		{"inflated beyond max.message.bytes", kerr.MessageTooLarge, bomb, func(p *Policy) { p.Compression = CodecNone }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := topic()
			if c.change != nil {
				c.change(&p)
			}
			_, err := Prepare(c.buf, &p)
			var code *kerr.Error
			if !errors.As(err, &code) || code != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if v := new(InvalidError); !errors.As(err, &v) || base.IsCorruption(err) {
				t.Errorf("%T is no InvalidError, or marked as corruption of ours", err)
			}
		})
	}
}

func TestTimestampBeatsKeyAndErrorsAreBounded(t *testing.T) {
	p := topic().with(func(p *Policy) { p.Compacted = true })
	buf := probeBatch().with(func(r *raw) { r.n, r.nullKey = 5000, true })
	_, err := Prepare(buf, &p)
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Records) != maxRecordErrors || !strings.Contains(invalid.Message, "due to 5000 record errors") {
		t.Errorf("got %v", err)
	}
	mixed := probeBatch().with(func(r *raw) {
		r.n = 1
		r.records = appendRecord(nil, &Record{}, 0, 0)
		r.skipDerivedHeaders, r.count, r.lastDelta, r.deltas, r.tsDeltas = true, 2, 1, []int32{1}, []int64{7200000}
	})
	_, err = Prepare(mixed, &p)
	if !errors.As(err, &invalid) || !errors.Is(err, kerr.InvalidTimestamp) || len(invalid.Records) != 2 {
		t.Errorf("got %v", err)
	}
}

// TestPreparesEveryCodec runs every pair of a client's and a topic's codec.
func TestPreparesEveryCodec(t *testing.T) {
	for from := CodecNone; from <= CodecZstd; from++ {
		for to := CodecProducer; to <= CodecZstd; to++ {
			for _, lat := range []bool{false, true} {
				p := topic().with(func(p *Policy) { p.Compression, p.LogAppendTime = to, lat })
				buf := probeBatch().with(func(r *raw) {
					r.attributes, r.n, r.valueSize = uint16(from)|attrTransactional, 300, 700
					r.pid, r.epoch, r.sequence = 9, 1, math.MaxInt32-5
				})
				original := slices.Clone(buf)
				b, err := Prepare(buf, &p)
				if err != nil {
					t.Fatalf("%s to %s: %v", from, to, err)
				}
				checkPrepared(t, b, &p)
				want := to
				if to == CodecProducer {
					want = from
				}
				if b.Codec() != want || !b.IsTransactional() || b.ProducerID() != 9 || b.LastSequence() != 293 {
					t.Errorf("%s to %s gave %s, %d", from, to, b.Codec(), b.LastSequence())
				}
				if want == from && &b[0] != &buf[0] {
					t.Errorf("%s to %s was copied", from, to)
				}
				if want == from && !lat && !bytes.Equal(original, b) {
					t.Errorf("%s to %s was changed", from, to)
				}
			}
		}
	}
}

// Kafka renumbers the records of old clients that number compressed records wrongly.
func TestRenumbersCompressedRecords(t *testing.T) {
	for codec := CodecGzip; codec <= CodecZstd; codec++ {
		for _, target := range []Codec{CodecProducer, CodecNone, CodecLZ4} {
			p := topic().with(func(p *Policy) { p.Compression = target })
			b, err := Prepare(probeBatch().with(func(r *raw) {
				r.attributes, r.n, r.deltas, r.pid, r.epoch, r.sequence = uint16(codec)|attrLogAppendTime, 3, []int32{0, 0, 7}, 5, 1, 17
				r.tsDeltas, r.maxMs = []int64{5, -7, 3}, 99
			}), &p)
			if err != nil {
				t.Fatal(err)
			}
			checkPrepared(t, b, &p)
			if b.LastSequence() != 19 || b.ProducerEpoch() != 1 {
				t.Errorf("producer fields lost: %d %d", b.LastSequence(), b.ProducerEpoch())
			}
		}
	}
}

func TestClientSetsNoDeleteHorizon(t *testing.T) {
	p := topic()
	b, err := Prepare(probeBatch().with(func(r *raw) { r.attributes = attrDeleteHorizon }), &p)
	if err != nil || b.HasDeleteHorizon() {
		t.Fatalf("delete horizon %t, %v", b.HasDeleteHorizon(), err)
	}
	checkPrepared(t, b, &p)
}

func TestInternalAppendsControlBatches(t *testing.T) {
	p := topic().with(func(p *Policy) { p.Internal, p.Compression = true, CodecZstd })
	m := EndMarker{Commit: true, CoordinatorEpoch: 3}
	b, err := Prepare(BuildEndMarker(m, 7, 2, 1000), &p)
	if err != nil || b.Codec() != CodecNone {
		t.Fatalf("%s, %v", b.Codec(), err)
	}
	if got, ok, err := b.EndMarker(); got != m || !ok || err != nil {
		t.Errorf("got %v %t %v", got, ok, err)
	}
}
