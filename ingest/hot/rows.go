package hot

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/varvelog/varve/internal/base"
)

// rowVersion is the first byte of every 'm', 's' and 'i' row. A reader refuses a version that it does not know.
const rowVersion = 1

// Meta is the 'm' row of a log: its checkpoint. Everything after it is rebuilt from the batches behind End.
type Meta struct {
	LogStart  base.Offset       // first offset that a consumer may read, over both tiers
	HotStart  base.Offset       // first offset kept in Pebble
	HighWater base.Offset       // of the last checkpoint
	End       base.Offset       // log end that Epochs and Producers describe
	Epochs    []base.EpochStart // all leader epochs of the log, ascending
	Producers []byte            // opaque to the store: ingest's producer snapshot as of End
}

// Sealed is an 's' row: a range that was closed for appends, with the producer snapshot as of its end.
type Sealed struct {
	Base, End    base.Offset // [Base, End), not empty
	Bytes        int64
	MaxTimestamp int64 // largest record timestamp, ms
	SealedAtMs   int64
	Producers    []byte
}

// IndexEntry is an 'i' row, one per about 256 KiB of a log: a sparse index by offset, bytes and time.
type IndexEntry struct {
	Offset       base.Offset // base offset of a batch
	Bytes        int64       // bytes of the log since it was created before this batch: differences are sizes
	MaxTimestamp int64       // largest record timestamp of the log before this batch (from HotStart on), ms
}

func (m *Meta) encode() []byte {
	b := make([]byte, 1, 64+20*len(m.Epochs)+len(m.Producers))
	b[0] = rowVersion
	for _, o := range [...]base.Offset{m.LogStart, m.HotStart, m.HighWater, m.End} {
		b = binary.AppendVarint(b, int64(o))
	}
	b = binary.AppendUvarint(b, uint64(len(m.Epochs)))
	for _, e := range m.Epochs {
		b = binary.AppendVarint(b, int64(e.Epoch))
		b = binary.AppendVarint(b, int64(e.Start))
	}
	return appendBytes(b, m.Producers)
}

// decodeMeta is the inverse of Meta.encode. The result does not share memory with b.
func decodeMeta(b []byte) (Meta, error) {
	r := newRowReader(b)
	m := Meta{LogStart: r.offset(), HotStart: r.offset(), HighWater: r.offset(), End: r.offset()}
	// An epoch takes two bytes at least, so a count beyond the row's length is refused before anything is allocated.
	if n := r.count(2); n > 0 {
		m.Epochs = make([]base.EpochStart, n)
		for i := range m.Epochs {
			m.Epochs[i].Epoch, m.Epochs[i].Start = r.epoch(), r.offset()
		}
	}
	m.Producers = r.bytes()
	return m, r.end()
}

// encode leaves End out: the key has it.
func (s *Sealed) encode() []byte {
	b := make([]byte, 1, 64+len(s.Producers))
	b[0] = rowVersion
	for _, v := range [...]int64{int64(s.Base), s.Bytes, s.MaxTimestamp, s.SealedAtMs} {
		b = binary.AppendVarint(b, v)
	}
	return appendBytes(b, s.Producers)
}

// decodeSealed is the inverse of Sealed.encode; last is the key's offset.
func decodeSealed(last base.Offset, b []byte) (Sealed, error) {
	r := newRowReader(b)
	s := Sealed{Base: r.offset(), End: last + 1, Bytes: r.varint(), MaxTimestamp: r.varint(), SealedAtMs: r.varint()}
	s.Producers = r.bytes()
	return s, r.end()
}

// encode leaves Offset out: the key has it.
func (e IndexEntry) encode() []byte {
	b := make([]byte, 1, 24)
	b[0] = rowVersion
	b = binary.AppendVarint(b, e.Bytes)
	return binary.AppendVarint(b, e.MaxTimestamp)
}

// decodeIndexEntry is the inverse of IndexEntry.encode.
func decodeIndexEntry(off base.Offset, b []byte) (IndexEntry, error) {
	r := newRowReader(b)
	e := IndexEntry{Offset: off, Bytes: r.varint(), MaxTimestamp: r.varint()}
	return e, r.end()
}

func appendBytes(dst, v []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}

var (
	errRowVersion = errors.New("row of an unknown version")
	errRowFormat  = errors.New("malformed row")
)

// rowReader decodes a row. The first error sticks; the reads after it return zeros.
type rowReader struct {
	b   []byte
	err error
}

func newRowReader(b []byte) *rowReader {
	r := &rowReader{b: b}
	switch {
	case len(b) == 0:
		r.fail(errRowFormat)
	case b[0] != rowVersion:
		r.fail(errRowVersion)
	default:
		r.b = b[1:]
	}
	return r
}

func (r *rowReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *rowReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errRowFormat)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *rowReader) offset() base.Offset { return base.Offset(r.varint()) }

func (r *rowReader) epoch() base.LeaderEpoch {
	v := r.varint()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail(errRowFormat)
		return 0
	}
	return base.LeaderEpoch(v)
}

// count reads the number of items that follow, each at least itemBytes long.
func (r *rowReader) count(itemBytes int) int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64((len(r.b)-n)/itemBytes) {
		r.fail(errRowFormat)
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// bytes returns a copy of a length-prefixed string of bytes; nil where it is empty.
func (r *rowReader) bytes() []byte {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	v := append([]byte(nil), r.b[:n]...)
	r.b = r.b[n:]
	return v
}

// end returns the first error, or one for what is left over.
func (r *rowReader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errRowFormat
	}
	return r.err
}
