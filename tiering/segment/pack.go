package segment

import (
	"fmt"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering/wire"
)

// PackTrailerSize is the fixed length of a pack's trailer in bytes.
const PackTrailerSize = 32

// MaxDirectoryBytes bounds a pack directory.
const MaxDirectoryBytes = 16 << 20

const packMagic = "VARVEPAK"

// PackKind says what the parts of a pack are.
type PackKind uint16

// The kinds of packs.
const (
	PackSegments  PackKind = 1 // parts are segments; First and Last are [base, end)
	PackManifests PackKind = 2 // parts are manifests; First and Last are leader epoch and sequence
	PackArchives  PackKind = 3 // parts are archive manifests; First and Last are [base, end)
)

// Part is one element of a pack.
type Part struct {
	Log         base.LogID
	Pos, Len    int64
	CRC32C      uint32
	First, Last int64 // meaning by kind
}

// AppendDirectory appends directory and trailer to a buffer that holds the parts.
func AppendDirectory(buf []byte, kind PackKind, parts []Part) []byte {
	e := wire.Encoder{B: buf}
	start := len(buf)
	e.Uvarint(uint64(len(parts)))
	for _, p := range parts {
		e.U64(uint64(p.Log))
		e.Uvarint(uint64(p.Pos))
		e.Uvarint(uint64(p.Len))
		e.U32(p.CRC32C)
		e.Varint(p.First)
		e.Varint(p.Last)
	}
	dir := e.B[start:]
	at := len(e.B)
	e.U64(uint64(start))
	e.U32(uint32(len(dir)))
	e.U32(wire.Checksum(dir))
	e.U16(Version)
	e.U16(uint16(kind))
	e.U32(wire.Checksum(e.B[at:]))
	e.Raw([]byte(packMagic))
	return e.B
}

// IsPack reports whether an object with these last bytes is a pack.
func IsPack(tail []byte) bool {
	return len(tail) >= 8 && string(tail[len(tail)-8:]) == packMagic
}

// ParseDirectory decodes the directory from the last bytes of a pack. Where tail is too short the error is a *NeedTail.
// Damage is a marked corruption.
func ParseDirectory(tail []byte) (PackKind, []Part, error) {
	if len(tail) < PackTrailerSize {
		return 0, nil, &NeedTail{Bytes: PackTrailerSize}
	}
	tr := tail[len(tail)-PackTrailerSize:]
	d := wire.NewDecoder(tr)
	partsBytes, dirBytes, dirCRC, version, kind := int64(d.U64()), int64(d.U32()), d.U32(), d.U16(), PackKind(d.U16())
	crc := d.U32()
	if string(tr[24:]) != packMagic || crc != wire.Checksum(tr[:20]) || version == 0 || version > Version || dirBytes > MaxDirectoryBytes || partsBytes < 0 {
		return 0, nil, base.MarkCorruption(fmt.Errorf("pack trailer %x", tr))
	}
	if need := dirBytes + PackTrailerSize; int64(len(tail)) < need {
		return 0, nil, &NeedTail{Bytes: need}
	}
	raw := tail[int64(len(tail))-dirBytes-PackTrailerSize : len(tail)-PackTrailerSize]
	if c := wire.Checksum(raw); c != dirCRC {
		return 0, nil, base.MarkCorruption(fmt.Errorf("pack directory: checksum %08x, want %08x", c, dirCRC))
	}
	parts, err := decodeParts(raw, partsBytes)
	if err != nil {
		return 0, nil, base.MarkCorruption(fmt.Errorf("pack directory: %w", err))
	}
	return kind, parts, nil
}

func decodeParts(raw []byte, partsBytes int64) ([]Part, error) {
	d := wire.NewDecoder(raw)
	parts := make([]Part, d.Count(16))
	for i := range parts {
		parts[i] = Part{Log: base.LogID(d.U64()), Pos: int64(d.Uvarint()), Len: int64(d.Uvarint()), CRC32C: d.U32(), First: d.Varint(), Last: d.Varint()}
		p := parts[i]
		if d.Err() == nil && (p.Pos < 0 || p.Len <= 0 || p.Len > partsBytes || p.Pos > partsBytes-p.Len) {
			d.Failf("part %d lies at %d+%d in %d bytes", i, p.Pos, p.Len, partsBytes)
		}
	}
	if d.Err() == nil && d.Left() != 0 {
		d.Failf("%d bytes after the end", d.Left())
	}
	return parts, d.Err()
}
