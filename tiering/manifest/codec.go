package manifest

import (
	"fmt"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering/wire"
)

// Version is the format version that this code writes. A reader refuses versions above it.
const Version = 1

const (
	manifestMagic = 0x564d414e // "VMAN"
	archiveMagic  = 0x56415243 // "VARC"
)

// maxNameBytes bounds an object name, as the stores do.
const maxNameBytes = 1024

// Encode returns the manifest's bytes.
func (m *Manifest) Encode() []byte {
	e := header(manifestMagic, m.Identity)
	e.Varint(int64(m.Epoch))
	e.Varint(m.Seq)
	e.Varint(m.WrittenMs)
	e.Varint(int64(m.LogStart))
	e.Varint(int64(m.End))
	e.Uvarint(uint64(len(m.Epochs)))
	for _, s := range m.Epochs {
		e.Varint(int64(s.Epoch))
		e.Varint(int64(s.Start))
	}
	e.Uvarint(uint64(len(m.Archives)))
	prev := ""
	for _, a := range m.Archives {
		encodeArchiveRef(e, &prev, a)
	}
	encodeEntries(e, m.Entries)
	return seal(e)
}

// Encode returns the archive's bytes.
func (a *Archive) Encode() []byte {
	e := header(archiveMagic, a.Identity)
	encodeEntries(e, a.Entries)
	return seal(e)
}

func header(magic uint32, id Identity) *wire.Encoder {
	e := &wire.Encoder{}
	e.U32(magic)
	e.U16(Version)
	e.String(id.Cluster)
	e.U64(uint64(id.Log))
	e.Raw(id.TopicID[:])
	e.String(id.TP.Topic)
	e.Uvarint(uint64(id.TP.Partition))
	return e
}

// seal appends the checksum.
func seal(e *wire.Encoder) []byte {
	e.U32(wire.Checksum(e.B))
	return e.B
}

// encodeName writes an object name as what it shares with the one before it and the rest.
func encodeName(e *wire.Encoder, prev *string, name string) {
	n := 0
	for n < len(name) && n < len(*prev) && name[n] == (*prev)[n] {
		n++
	}
	e.Uvarint(uint64(n))
	e.String(name[n:])
	*prev = name
}

func decodeName(d *wire.Decoder, prev *string) string {
	n := d.Uvarint()
	rest := d.Bytes()
	if n > uint64(len(*prev)) || int(n)+len(rest) > maxNameBytes {
		d.Failf("object name of %d+%d bytes", n, len(rest))
	}
	if d.Err() != nil {
		return ""
	}
	if n != uint64(len(*prev)) || len(rest) > 0 { // an unchanged name shares its memory
		*prev = (*prev)[:n] + string(rest)
	}
	return *prev
}

func encodeArchiveRef(e *wire.Encoder, prev *string, a ArchiveRef) {
	encodeName(e, prev, a.Object)
	e.Uvarint(uint64(a.ObjectBytes))
	e.Uvarint(uint64(a.Pos))
	e.Uvarint(uint64(a.Len))
	e.U32(a.CRC32C)
	e.Uvarint(uint64(a.Base))
	e.Uvarint(uint64(a.End - a.Base))
	e.Uvarint(uint64(a.Bytes))
	e.Uvarint(uint64(a.Entries))
	e.Varint(a.MaxTimestamp)
}

func decodeArchiveRef(d *wire.Decoder, prev *string) ArchiveRef {
	a := ArchiveRef{Object: decodeName(d, prev), ObjectBytes: int64(d.Uvarint()), Pos: int64(d.Uvarint()), Len: int64(d.Uvarint()), CRC32C: d.U32()}
	a.Base = base.Offset(d.Uvarint())
	a.End = a.Base + base.Offset(d.Uvarint())
	a.Bytes, a.Entries, a.MaxTimestamp = int64(d.Uvarint()), int64(d.Uvarint()), d.Varint()
	return a
}

// entryMinBytes and archiveRefMinBytes are the least that one element takes: they bound what a count may announce.
const (
	entryMinBytes      = 15
	archiveRefMinBytes = 14
)

func encodeEntries(e *wire.Encoder, entries []Entry) {
	e.Uvarint(uint64(len(entries)))
	prev := ""
	for _, x := range entries {
		encodeName(e, &prev, x.Object)
		e.Uvarint(uint64(x.ObjectBytes))
		e.Uvarint(uint64(x.Pos))
		e.Uvarint(uint64(x.Len))
		e.Uvarint(uint64(x.TailBytes))
		e.U32(x.CRC32C)
		e.Uvarint(uint64(x.Base))
		e.Uvarint(uint64(x.End - x.Base))
		e.Varint(x.MaxTimestamp)
		e.Varint(int64(x.LeaderEpoch))
		e.Uvarint(uint64(x.Flags))
	}
}

func decodeEntries(d *wire.Decoder) []Entry {
	out := make([]Entry, d.Count(entryMinBytes))
	prev := ""
	for i := range out {
		x := Entry{Object: decodeName(d, &prev), ObjectBytes: int64(d.Uvarint()), Pos: int64(d.Uvarint()), Len: int64(d.Uvarint()), TailBytes: int64(d.Uvarint()), CRC32C: d.U32()}
		x.Base = base.Offset(d.Uvarint())
		x.End = x.Base + base.Offset(d.Uvarint())
		x.MaxTimestamp, x.LeaderEpoch, x.Flags = d.Varint(), base.LeaderEpoch(d.Varint()), Flags(d.Uvarint())
		out[i] = x
	}
	return out
}

// open checks magic, version and checksum and leaves the decoder behind the identity.
func open(b []byte, magic uint32) (*wire.Decoder, Identity, error) {
	var id Identity
	if len(b) < 10 {
		return nil, id, fmt.Errorf("%d bytes", len(b))
	}
	body, tail := b[:len(b)-4], wire.NewDecoder(b[len(b)-4:])
	if crc := tail.U32(); crc != wire.Checksum(body) {
		return nil, id, fmt.Errorf("checksum %08x, want %08x", wire.Checksum(body), crc)
	}
	d := wire.NewDecoder(body)
	if m := d.U32(); m != magic {
		return nil, id, fmt.Errorf("magic %08x, want %08x", m, magic)
	}
	if v := d.U16(); v == 0 || v > Version {
		return nil, id, fmt.Errorf("format version %d, this program reads up to %d", v, Version)
	}
	id.Cluster = d.String()
	id.Log = base.LogID(d.U64())
	copy(id.TopicID[:], d.Raw(16))
	id.TP.Topic = d.String()
	id.TP.Partition = int32(d.Uvarint())
	return d, id, nil
}

// Decode reads a manifest and checks it. Damage is a marked corruption.
func Decode(b []byte) (*Manifest, error) {
	m, err := decode(b)
	if err != nil {
		return nil, base.MarkCorruption(fmt.Errorf("manifest: %w", err))
	}
	return m, nil
}

func decode(b []byte) (*Manifest, error) {
	d, id, err := open(b, manifestMagic)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Identity: id}
	m.Epoch, m.Seq, m.WrittenMs = base.LeaderEpoch(d.Varint()), d.Varint(), d.Varint()
	m.LogStart, m.End = base.Offset(d.Varint()), base.Offset(d.Varint())
	m.Epochs = make([]base.EpochStart, d.Count(2))
	for i := range m.Epochs {
		m.Epochs[i] = base.EpochStart{Epoch: base.LeaderEpoch(d.Varint()), Start: base.Offset(d.Varint())}
	}
	m.Archives = make([]ArchiveRef, d.Count(archiveRefMinBytes))
	prev := ""
	for i := range m.Archives {
		m.Archives[i] = decodeArchiveRef(d, &prev)
	}
	m.Entries = decodeEntries(d)
	if d.Err() == nil && d.Left() != 0 {
		d.Failf("%d bytes after the end", d.Left())
	}
	if d.Err() != nil {
		return nil, d.Err()
	}
	return m, m.Check()
}

// DecodeArchive reads an archive and checks it. Damage is a marked corruption.
func DecodeArchive(b []byte) (*Archive, error) {
	d, id, err := open(b, archiveMagic)
	if err != nil {
		return nil, base.MarkCorruption(fmt.Errorf("archive: %w", err))
	}
	a := &Archive{Identity: id, Entries: decodeEntries(d)}
	if d.Err() == nil && d.Left() != 0 {
		d.Failf("%d bytes after the end", d.Left())
	}
	if d.Err() == nil {
		err = a.check()
	} else {
		err = d.Err()
	}
	if err != nil {
		return nil, base.MarkCorruption(fmt.Errorf("archive: %w", err))
	}
	return a, nil
}
