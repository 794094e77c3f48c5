package record

import (
	"fmt"

	"github.com/varvelog/varve/internal/base"
)

// Header is one record header.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// Record is one decoded record. Key and Value are nil where null and point into the batch (or its decompressed copy).
type Record struct {
	Offset    base.Offset
	Timestamp int64 // milliseconds; of a LogAppendTime batch its max timestamp
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Each calls fn for every record of the batch in order until it returns false. What a Record points to is the batch
// itself or, where that is compressed, a copy that is never reused: it may be kept. Corrupt bytes give a marked
// corruption, and so does a batch that decompresses to more than 100 MiB.
func (b Batch) Each(fn func(Record) bool) error { return b.decode(0, fn) }

// decode is Each with a bound on the decompressed bytes; 0 means the default.
func (b Batch) decode(limit int, fn func(Record) bool) error {
	records := b.payload()
	if b.Codec() != CodecNone {
		h := decompressions.enter()
		var err error
		records, err = inflateAll(h, b.Codec(), records, limit)
		h.leave() // fn may do anything, also read another batch
		if err != nil {
			return b.corrupt(err)
		}
	}
	return b.scan(records, fn)
}

// scan calls fn for the records of the batch, which are not compressed.
func (b Batch) scan(records []byte, fn func(Record) bool) error {
	s := scanner{buf: records}
	var f fields
	for range b.Count() {
		if err := s.next(&f); err != nil {
			return b.corrupt(err)
		}
		r := Record{Offset: b.offset(&f), Timestamp: b.timestamp(&f), Key: f.key, Value: f.value, Headers: f.decodeHeaders()}
		if !fn(r) {
			return nil
		}
	}
	if err := s.finish(); err != nil {
		return b.corrupt(err)
	}
	return nil
}

// FindTime returns the first record with a timestamp of at least ts milliseconds; ok is false where there is none. It
// builds no records. A control batch has records like any other here.
func (b Batch) FindTime(ts int64) (off base.Offset, timestamp int64, ok bool, err error) {
	if b.MaxTimestamp() < ts {
		return base.NoOffset, NoTimestamp, false, nil
	}
	return b.find(func(ms int64) bool { return ms >= ts })
}

// MaxTimestampRecord returns the first record that has the batch's largest timestamp, as ListOffsets -3 answers
// (KIP-734); offset and timestamp are -1 where the batch has no records. Prepare has made sure that the header's largest
// timestamp is one of the records'.
func (b Batch) MaxTimestampRecord() (off base.Offset, ts int64, err error) {
	want := b.MaxTimestamp()
	off, ts, _, err = b.find(func(ms int64) bool { return ms == want })
	return off, ts, err
}

// find returns the first record whose timestamp matches.
func (b Batch) find(match func(ms int64) bool) (base.Offset, int64, bool, error) {
	s := scanner{buf: b.payload()}
	if b.Codec() != CodecNone {
		var inf *inflater
		var err error
		h := decompressions.enter()
		defer h.leave()
		if s, inf, err = inflate(h, b.Codec(), b.payload(), 0); err != nil {
			return base.NoOffset, NoTimestamp, false, b.corrupt(err)
		}
		defer inf.close()
	}
	var f fields
	for range b.Count() {
		if err := s.next(&f); err != nil {
			return base.NoOffset, NoTimestamp, false, b.corrupt(err)
		}
		if ms := b.timestamp(&f); match(ms) {
			return b.offset(&f), ms, true, nil
		}
	}
	return base.NoOffset, NoTimestamp, false, nil
}

func (b Batch) offset(f *fields) base.Offset { return b.BaseOffset() + base.Offset(f.offsetDelta) }

func (b Batch) timestamp(f *fields) int64 {
	if b.IsLogAppendTime() {
		return b.MaxTimestamp()
	}
	return b.BaseTimestamp() + f.tsDelta
}

func (b Batch) corrupt(err error) error {
	return base.MarkCorruption(fmt.Errorf("record batch at offset %d: %w", b.BaseOffset(), err))
}

// decodeHeaders builds the headers, whose bytes parse has checked.
func (f *fields) decodeHeaders() []Header {
	if f.headerCount == 0 {
		return nil
	}
	out := make([]Header, f.headerCount)
	b, i := f.headers, 0
	for h := range out {
		var n int32
		n, i = varint32(b, i)
		out[h].Key = string(b[i : i+int(n)])
		i += int(n)
		if n, i = varint32(b, i); n >= 0 {
			out[h].Value = b[i : i+int(n) : i+int(n)]
			i += int(n)
		}
	}
	return out
}
