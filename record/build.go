package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
)

// BuildHeader is the part of a batch header that Build cannot derive.
type BuildHeader struct {
	LeaderEpoch   base.LeaderEpoch
	Codec         Codec
	Level         int // of Codec; 0 means its default
	LogAppendTime bool
	Transactional bool
	Control       bool
	ProducerID    base.ProducerID // NoProducerID for none
	ProducerEpoch int16
	BaseSequence  int32

	// Range keeps the offsets of a batch that compaction took records out of: sequences and offsets then still cover what
	// was there, and the batch may be empty. Nil takes them from the records.
	Range *OffsetRange
	// DeleteHorizonMs, where not nil, marks the batch with a delete horizon (KIP-534).
	DeleteHorizonMs *int64
}

// OffsetRange is the inclusive range of offsets that a batch stands for.
type OffsetRange struct{ First, Last base.Offset }

// Build makes a batch of records (offsets are taken from Record.Offset, the first being the base) with the given header
// fields. It is used by coordinators, compaction and tests. Offsets must ascend; gaps are allowed (compaction makes them).
// An error is a caller's mistake: no records, offsets out of order or too far apart, more than 2 GiB.
func Build(h BuildHeader, records []Record) (Batch, error) {
	first, last, err := span(h, records)
	if err != nil {
		return nil, err
	}
	origin, maxMs := NoTimestamp, NoTimestamp
	if len(records) > 0 {
		origin = records[0].Timestamp
	}
	if h.DeleteHorizonMs != nil {
		origin = *h.DeleteHorizonMs
	}
	size := HeaderSize
	for i := range records {
		maxMs = max(maxMs, records[i].Timestamp)
		size += maxEncodedSize(&records[i])
	}
	if size > math.MaxInt32 {
		return nil, fmt.Errorf("record batch of %d bytes is too large", size)
	}
	b := make(Batch, HeaderSize, size)
	for i := range records {
		b = appendRecord(b, &records[i], records[i].Offset-first, records[i].Timestamp-origin)
	}
	h.fill(b, first, last, origin, maxMs, len(records))
	if h.Codec != CodecNone {
		return recode(b, h.Codec, h.Level, b.payload())
	}
	b.setLength()
	b.setCRC()
	return b, nil
}

// span is the range of offsets of the batch to build.
func span(h BuildHeader, records []Record) (first, last base.Offset, err error) {
	switch {
	case h.Range != nil:
		first, last = h.Range.First, h.Range.Last
	case len(records) == 0:
		return 0, 0, errors.New("no records to build a batch of")
	default:
		first, last = records[0].Offset, records[len(records)-1].Offset
	}
	if last < first || last-first > math.MaxInt32 {
		return 0, 0, fmt.Errorf("offsets %d to %d do not fit a record batch", first, last)
	}
	previous := first - 1
	for i := range records {
		if o := records[i].Offset; o <= previous || o > last {
			return 0, 0, fmt.Errorf("record %d has offset %d, after %d in a batch up to %d", i, o, previous, last)
		}
		previous = records[i].Offset
	}
	return first, last, nil
}

// fill writes the header of an uncompressed batch, but for its length and CRC.
func (h *BuildHeader) fill(b Batch, first, last base.Offset, origin, maxMs int64, count int) {
	b.SetBaseOffset(first)
	b.SetLeaderEpoch(h.LeaderEpoch)
	b[posMagic] = magic2
	var attributes uint16
	for _, bit := range []struct {
		on   bool
		mask uint16
	}{
		{h.LogAppendTime, attrLogAppendTime},
		{h.Transactional, attrTransactional},
		{h.Control, attrControl},
		{h.DeleteHorizonMs != nil, attrDeleteHorizon},
	} {
		if bit.on {
			attributes |= bit.mask
		}
	}
	b.setAttributes(attributes)
	binary.BigEndian.PutUint32(b[posLastDelta:], uint32(last-first))
	binary.BigEndian.PutUint64(b[posBaseTimestamp:], uint64(origin))
	b.setMaxTimestamp(maxMs)
	binary.BigEndian.PutUint64(b[posProducerID:], uint64(h.ProducerID))
	binary.BigEndian.PutUint16(b[posProducerEpoch:], uint16(h.ProducerEpoch))
	binary.BigEndian.PutUint32(b[posBaseSequence:], uint32(h.BaseSequence))
	binary.BigEndian.PutUint32(b[posCount:], uint32(count))
}

// Recompress returns the batch with its records compressed by codec at level (0 means the codec's default); offsets,
// timestamps, leader epoch and producer fields stay. A batch that has the codec already comes back as it is, and so does
// a control batch, which Kafka does not compress; the result may be larger than the batch given. The batch is not
// modified. It is a marked corruption where its records do not decompress.
func Recompress(b Batch, codec Codec, level int) (Batch, error) {
	if b.Codec() == codec || codec == CodecProducer || b.IsControl() {
		return b, nil
	}
	records := b.payload()
	h := decompressions.enter()
	defer h.leave()
	if b.Codec() != CodecNone {
		var err error
		if records, err = inflateAll(h, b.Codec(), records, 0); err != nil {
			return nil, b.corrupt(err)
		}
	}
	return recode(b, codec, level, records)
}

// recode makes a new batch with b's header and the encoded records, compressed by codec.
func recode(b Batch, codec Codec, level int, records []byte) (Batch, error) {
	out := make(Batch, HeaderSize, HeaderSize+len(records)/2+64)
	copy(out, b[:HeaderSize])
	out, err := compress(out, codec, level, records)
	if err != nil {
		return nil, fmt.Errorf("compress record batch with %s: %w", codec, err)
	}
	if len(out) > math.MaxInt32 {
		return nil, fmt.Errorf("record batch of %d bytes is too large", len(out))
	}
	out.setAttributes(b.attributes()&^attrCodec | uint16(codec))
	out.setLength()
	out.setCRC()
	invariants.Assert(out.Codec() == codec && out.Count() == b.Count(), "recode to %s lost the header", codec)
	return out, nil
}

// maxEncodedSize bounds the encoded size of a record in bytes.
func maxEncodedSize(r *Record) int {
	n := 1 + 4*binary.MaxVarintLen32 + binary.MaxVarintLen64 + binary.MaxVarintLen32 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 2*binary.MaxVarintLen32 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// appendRecord encodes a record, its length first.
func appendRecord(b []byte, r *Record, offsetDelta base.Offset, tsDelta int64) []byte {
	b = binary.AppendVarint(b, int64(encodedSize(r, offsetDelta, tsDelta)))
	b = append(b, 0) // attributes
	b = binary.AppendVarint(b, tsDelta)
	b = binary.AppendVarint(b, int64(offsetDelta))
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	b = binary.AppendVarint(b, int64(len(r.Headers)))
	for i := range r.Headers {
		b = binary.AppendVarint(b, int64(len(r.Headers[i].Key)))
		b = append(b, r.Headers[i].Key...)
		b = appendBytes(b, r.Headers[i].Value)
	}
	return b
}

// encodedSize is what appendRecord writes after the length, in bytes.
func encodedSize(r *Record, offsetDelta base.Offset, tsDelta int64) int {
	n := 1 + varintSize(tsDelta) + varintSize(int64(offsetDelta)) + bytesSize(r.Key) + bytesSize(r.Value) + varintSize(int64(len(r.Headers)))
	for i := range r.Headers {
		n += varintSize(int64(len(r.Headers[i].Key))) + len(r.Headers[i].Key) + bytesSize(r.Headers[i].Value)
	}
	return n
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

func bytesSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(int64(len(v))) + len(v)
}

func varintSize(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
