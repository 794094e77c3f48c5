package wire_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/varvelog/varve/tiering/wire"
)

func TestRoundTrip(t *testing.T) {
	e := wire.Encoder{}
	e.U16(0xfffe)
	e.U32(0xfffffffd)
	e.U64(math.MaxUint64)
	e.Uvarint(300)
	e.Varint(math.MinInt64)
	e.Bytes([]byte("bytes"))
	e.String("string")
	e.Uvarint(2)
	e.Raw([]byte{1, 2})
	d := wire.NewDecoder(e.B)
	if d.U16() != 0xfffe || d.U32() != 0xfffffffd || d.U64() != math.MaxUint64 || d.Uvarint() != 300 || d.Varint() != math.MinInt64 {
		t.Error("integers differ")
	}
	if !bytes.Equal(d.Bytes(), []byte("bytes")) || d.String() != "string" || d.Count(1) != 2 || len(d.Raw(2)) != 2 || d.Left() != 0 || d.Err() != nil {
		t.Errorf("bytes differ, %d left, %v", d.Left(), d.Err())
	}
}

func TestShortInput(t *testing.T) {
	f := func(name string, in []byte, read func(*wire.Decoder)) {
		t.Helper()
		d := wire.NewDecoder(in)
		read(d)
		if !errors.Is(d.Err(), wire.ErrShort) {
			t.Errorf("%s: %v", name, d.Err())
		}
		if d.U32() != 0 || d.Uvarint() != 0 || d.Bytes() != nil || d.Count(1) != 0 || !errors.Is(d.Err(), wire.ErrShort) {
			t.Errorf("%s: an error does not stick", name)
		}
	}
	f("u16", []byte{1}, func(d *wire.Decoder) { d.U16() })
	f("u32", []byte{1, 2, 3}, func(d *wire.Decoder) { d.U32() })
	f("u64", make([]byte, 7), func(d *wire.Decoder) { d.U64() })
	f("uvarint", []byte{0x80}, func(d *wire.Decoder) { d.Uvarint() })
	f("varint of 11 bytes", bytes.Repeat([]byte{0xff}, 11), func(d *wire.Decoder) { d.Varint() })
	f("bytes", []byte{5, 1}, func(d *wire.Decoder) { d.Bytes() })
	f("bytes of 2^63", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, func(d *wire.Decoder) { d.Bytes() })
	f("count", []byte{200, 1, 0, 0}, func(d *wire.Decoder) { d.Count(1) })
	f("count by size", []byte{3, 0, 0, 0, 0, 0}, func(d *wire.Decoder) { d.Count(2) })
	f("negative", nil, func(d *wire.Decoder) { d.Raw(-1) })
}
