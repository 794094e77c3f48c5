package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C of b, the checksum of everything that tiering stores.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// ErrShort means that the input ends before what it announces.
var ErrShort = errors.New("input ends too early")

// Encoder appends to B.
type Encoder struct{ B []byte }

// U16 appends a big-endian 16-bit integer.
func (e *Encoder) U16(v uint16) { e.B = binary.BigEndian.AppendUint16(e.B, v) }

// U32 appends a big-endian 32-bit integer.
func (e *Encoder) U32(v uint32) { e.B = binary.BigEndian.AppendUint32(e.B, v) }

// U64 appends a big-endian 64-bit integer.
func (e *Encoder) U64(v uint64) { e.B = binary.BigEndian.AppendUint64(e.B, v) }

// Uvarint appends an unsigned varint.
func (e *Encoder) Uvarint(v uint64) { e.B = binary.AppendUvarint(e.B, v) }

// Varint appends a zigzag varint.
func (e *Encoder) Varint(v int64) { e.B = binary.AppendVarint(e.B, v) }

// Raw appends b as it is.
func (e *Encoder) Raw(b []byte) { e.B = append(e.B, b...) }

// Bytes appends b after its length.
func (e *Encoder) Bytes(b []byte) {
	e.Uvarint(uint64(len(b)))
	e.Raw(b)
}

// String appends s after its length.
func (e *Encoder) String(s string) {
	e.Uvarint(uint64(len(s)))
	e.B = append(e.B, s...)
}

// Decoder reads what Encoder wrote. The first error sticks; after it every method answers zero.
type Decoder struct {
	b   []byte
	err error
}

// NewDecoder reads b, which the results of Raw and Bytes share.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Err is the first error.
func (d *Decoder) Err() error { return d.err }

// Left is how many bytes were not read yet.
func (d *Decoder) Left() int { return len(d.b) }

// Failf sets the error unless there is one already.
func (d *Decoder) Failf(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

// Raw reads n bytes.
func (d *Decoder) Raw(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.Failf("%w: want %d bytes of %d", ErrShort, n, len(d.b))
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

// U16 reads a big-endian 16-bit integer.
func (d *Decoder) U16() uint16 {
	if b := d.Raw(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// U32 reads a big-endian 32-bit integer.
func (d *Decoder) U32() uint32 {
	if b := d.Raw(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// U64 reads a big-endian 64-bit integer.
func (d *Decoder) U64() uint64 {
	if b := d.Raw(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Uvarint reads an unsigned varint.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.err != nil || n <= 0 {
		d.Failf("%w: varint", ErrShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Varint reads a zigzag varint.
func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.b)
	if d.err != nil || n <= 0 {
		d.Failf("%w: varint", ErrShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Bytes reads length-prefixed bytes.
func (d *Decoder) Bytes() []byte {
	n := d.Uvarint()
	if n > uint64(len(d.b)) {
		d.Failf("%w: %d bytes announced, %d left", ErrShort, n, len(d.b))
		return nil
	}
	return d.Raw(int(n))
}

// String reads a length-prefixed string.
func (d *Decoder) String() string { return string(d.Bytes()) }

// Count reads the length of a list whose elements take at least minBytes each, so that a hostile length cannot make the
// caller allocate more than a small multiple of the input.
func (d *Decoder) Count(minBytes int) int {
	n := d.Uvarint()
	if d.err == nil && n > uint64(len(d.b)/minBytes) {
		d.Failf("%w: %d elements announced in %d bytes", ErrShort, n, len(d.b))
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}
