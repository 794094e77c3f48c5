package segment

import (
	"fmt"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering/wire"
)

// Version is the format version that this code writes. A reader refuses versions above it.
const Version = 1

// TrailerSize is the fixed length of a segment's trailer in bytes.
const TrailerSize = 32

// MaxFooterBytes bounds a footer; a segment of 5 GiB with the default index stays far below it.
const MaxFooterBytes = 64 << 20

const (
	trailerMagic = "VARVESEG"
	footerMagic  = 0x56465431 // "VFT1"
)

// Flags say what a segment contains without a look at its batches.
type Flags uint16

// HasTransactions marks a segment with transactional batches or control batches.
const HasTransactions Flags = 1

// AbortedTxn is an aborted transaction (KIP-98). LastOffset is the offset of its abort marker.
type AbortedTxn struct {
	ProducerID  base.ProducerID
	FirstOffset base.Offset
	LastOffset  base.Offset
}

// IndexEntry is one mark of the sparse index. Every mark stands at the start of a batch.
type IndexEntry struct {
	Offset   base.Offset // base offset of the batch at Position
	Position int64       // within the segment's body
	// MaxTimestamp is the largest timestamp of the segment's batches up to the next mark: it never falls from mark to mark,
	// so the first mark at which it reaches ts starts the stretch that holds the first record with a timestamp >= ts.
	MaxTimestamp int64
}

// Identity says which range of which partition a segment holds.
type Identity struct {
	Log          base.LogID
	TopicID      base.TopicID
	TP           base.TopicPartition
	Base, End    base.Offset // [Base, End)
	MaxTimestamp int64       // milliseconds, -1 where no batch has one
	LeaderEpoch  base.LeaderEpoch
	CreatedMs    int64
}

// Footer is everything about a segment but its batches.
type Footer struct {
	Identity
	Flags       Flags
	BodyBytes   int64
	BlockBytes  int64    // the body is checksummed in blocks of this size, the last may be shorter
	BlockCRCs   []uint32 // CRC-32C of each block
	Index       []IndexEntry
	Epochs      []base.EpochStart // leader epochs of the log up to End
	Aborted     []AbortedTxn
	Producers   []byte // producer snapshot as of End, opaque; empty where End is inside a sealed range
	FooterBytes int64  // length of footer and trailer together; set when decoded or built
}

// Trailer locates the footer.
type Trailer struct {
	BodyBytes   int64
	FooterBytes int64 // without the trailer
	FooterCRC   uint32
	Version     uint16
	Flags       Flags
}

// encodeTrailer appends the trailer.
func encodeTrailer(e *wire.Encoder, t Trailer) {
	start := len(e.B)
	e.U64(uint64(t.BodyBytes))
	e.U32(uint32(t.FooterBytes))
	e.U32(t.FooterCRC)
	e.U16(t.Version)
	e.U16(uint16(t.Flags))
	e.U32(wire.Checksum(e.B[start:]))
	e.Raw([]byte(trailerMagic))
}

// ParseTrailer reads the last TrailerSize bytes of a segment. Damage is a marked corruption.
func ParseTrailer(b []byte) (Trailer, error) {
	t, err := parseTrailer(b)
	if err != nil {
		return Trailer{}, base.MarkCorruption(fmt.Errorf("segment trailer: %w", err))
	}
	return t, nil
}

func parseTrailer(b []byte) (Trailer, error) {
	if len(b) != TrailerSize {
		return Trailer{}, fmt.Errorf("%d bytes, want %d", len(b), TrailerSize)
	}
	if string(b[24:]) != trailerMagic {
		return Trailer{}, fmt.Errorf("magic %x", b[24:])
	}
	d := wire.NewDecoder(b[:24])
	t := Trailer{BodyBytes: int64(d.U64()), FooterBytes: int64(d.U32()), FooterCRC: d.U32(), Version: d.U16(), Flags: Flags(d.U16())}
	if crc := d.U32(); crc != wire.Checksum(b[:20]) {
		return Trailer{}, fmt.Errorf("checksum %08x, want %08x", wire.Checksum(b[:20]), crc)
	}
	if t.Version == 0 || t.Version > Version {
		return Trailer{}, fmt.Errorf("format version %d, this program reads up to %d", t.Version, Version)
	}
	if t.BodyBytes <= 0 || t.FooterBytes > MaxFooterBytes {
		return Trailer{}, fmt.Errorf("body of %d bytes, footer of %d", t.BodyBytes, t.FooterBytes)
	}
	return t, nil
}

// encodeFooter appends footer and trailer and sets f.FooterBytes.
func encodeFooter(e *wire.Encoder, f *Footer) {
	start := len(e.B)
	e.U32(footerMagic)
	e.U64(uint64(f.Log))
	e.Raw(f.TopicID[:])
	e.String(f.TP.Topic)
	e.Uvarint(uint64(f.TP.Partition))
	e.Uvarint(uint64(f.Base))
	e.Uvarint(uint64(f.End - f.Base))
	e.Varint(f.MaxTimestamp)
	e.Varint(int64(f.LeaderEpoch))
	e.Varint(f.CreatedMs)
	e.Uvarint(uint64(f.BlockBytes))
	e.Uvarint(uint64(len(f.BlockCRCs)))
	for _, c := range f.BlockCRCs {
		e.U32(c)
	}
	encodeIndex(e, f)
	e.Uvarint(uint64(len(f.Epochs)))
	for _, s := range f.Epochs {
		e.Varint(int64(s.Epoch))
		e.Varint(int64(s.Start))
	}
	e.Uvarint(uint64(len(f.Aborted)))
	for _, a := range f.Aborted {
		e.Varint(int64(a.ProducerID))
		e.Varint(int64(a.FirstOffset))
		e.Varint(int64(a.LastOffset))
	}
	e.Bytes(f.Producers)
	footer := e.B[start:]
	encodeTrailer(e, Trailer{BodyBytes: f.BodyBytes, FooterBytes: int64(len(footer)), FooterCRC: wire.Checksum(footer), Version: Version, Flags: f.Flags})
	f.FooterBytes = int64(len(e.B) - start)
}

// encodeIndex writes the marks as differences: about six bytes each.
func encodeIndex(e *wire.Encoder, f *Footer) {
	e.Uvarint(uint64(len(f.Index)))
	prev := IndexEntry{Offset: f.Base}
	for _, x := range f.Index {
		e.Uvarint(uint64(x.Offset - prev.Offset))
		e.Uvarint(uint64(x.Position - prev.Position))
		e.Varint(x.MaxTimestamp - prev.MaxTimestamp)
		prev = x
	}
}

// ParseFooter decodes tail, which ends with the trailer and starts at or before the footer. Where tail is too short it
// returns ErrNeedTail with the length that is needed. Damage is a marked corruption.
func ParseFooter(tail []byte) (*Footer, error) {
	if len(tail) < TrailerSize {
		return nil, &NeedTail{Bytes: TrailerSize}
	}
	t, err := ParseTrailer(tail[len(tail)-TrailerSize:])
	if err != nil {
		return nil, err
	}
	if need := t.FooterBytes + TrailerSize; int64(len(tail)) < need {
		return nil, &NeedTail{Bytes: need}
	}
	raw := tail[int64(len(tail))-t.FooterBytes-TrailerSize : len(tail)-TrailerSize]
	if crc := wire.Checksum(raw); crc != t.FooterCRC {
		return nil, base.MarkCorruption(fmt.Errorf("segment footer: checksum %08x, want %08x", crc, t.FooterCRC))
	}
	f, err := decodeFooter(raw, t)
	if err != nil {
		return nil, base.MarkCorruption(fmt.Errorf("segment footer: %w", err))
	}
	return f, nil
}

// NeedTail says that a footer is longer than the tail that was read.
type NeedTail struct{ Bytes int64 }

func (n *NeedTail) Error() string {
	return fmt.Sprintf("segment footer needs the last %d bytes", n.Bytes)
}

func decodeFooter(raw []byte, t Trailer) (*Footer, error) {
	d := wire.NewDecoder(raw)
	if m := d.U32(); m != footerMagic {
		return nil, fmt.Errorf("magic %08x", m)
	}
	f := &Footer{Flags: t.Flags, BodyBytes: t.BodyBytes, FooterBytes: t.FooterBytes + TrailerSize}
	f.Log = base.LogID(d.U64())
	copy(f.TopicID[:], d.Raw(16))
	f.TP.Topic = d.String()
	f.TP.Partition = int32(d.Uvarint())
	f.Base = base.Offset(d.Uvarint())
	f.End = f.Base + base.Offset(d.Uvarint())
	f.MaxTimestamp = d.Varint()
	f.LeaderEpoch = base.LeaderEpoch(d.Varint())
	f.CreatedMs = d.Varint()
	f.BlockBytes = int64(d.Uvarint())
	f.BlockCRCs = make([]uint32, d.Count(4))
	for i := range f.BlockCRCs {
		f.BlockCRCs[i] = d.U32()
	}
	decodeIndex(d, f)
	f.Epochs = make([]base.EpochStart, d.Count(2))
	for i := range f.Epochs {
		f.Epochs[i] = base.EpochStart{Epoch: base.LeaderEpoch(d.Varint()), Start: base.Offset(d.Varint())}
	}
	f.Aborted = make([]AbortedTxn, d.Count(3))
	for i := range f.Aborted {
		f.Aborted[i] = AbortedTxn{ProducerID: base.ProducerID(d.Varint()), FirstOffset: base.Offset(d.Varint()), LastOffset: base.Offset(d.Varint())}
	}
	f.Producers = append([]byte(nil), d.Bytes()...)
	if d.Err() == nil && d.Left() != 0 {
		d.Failf("%d bytes after the end", d.Left())
	}
	if d.Err() != nil {
		return nil, d.Err()
	}
	return f, f.validate()
}

func decodeIndex(d *wire.Decoder, f *Footer) {
	f.Index = make([]IndexEntry, d.Count(3))
	prev := IndexEntry{Offset: f.Base}
	for i := range f.Index {
		prev.Offset += base.Offset(d.Uvarint())
		prev.Position += int64(d.Uvarint())
		prev.MaxTimestamp += d.Varint()
		f.Index[i] = prev
	}
}

// validate checks what look-ups rely on, so that they need no bounds checks of their own.
func (f *Footer) validate() error {
	if f.Base < 0 || f.End <= f.Base || f.TP.Partition < 0 || f.Log == 0 {
		return fmt.Errorf("range [%d, %d) of %s, log %s", f.Base, f.End, f.TP, f.Log)
	}
	if f.BlockBytes <= 0 || f.BodyBytes <= 0 || int64(len(f.BlockCRCs)) != (f.BodyBytes-1)/f.BlockBytes+1 {
		return fmt.Errorf("%d checksums for %d bytes in blocks of %d", len(f.BlockCRCs), f.BodyBytes, f.BlockBytes)
	}
	if len(f.Index) == 0 || f.Index[0].Position != 0 || f.Index[0].Offset < f.Base {
		return fmt.Errorf("index does not start at offset %d", f.Base)
	}
	for i, x := range f.Index[1:] {
		p := f.Index[i]
		if x.Offset <= p.Offset || x.Position <= p.Position || x.MaxTimestamp < p.MaxTimestamp {
			return fmt.Errorf("index mark %d is out of order", i+1)
		}
	}
	last := f.Index[len(f.Index)-1]
	if last.Offset >= f.End || last.Position >= f.BodyBytes || last.MaxTimestamp != f.MaxTimestamp {
		return fmt.Errorf("last index mark %d/%d/%d lies outside the segment", last.Offset, last.Position, last.MaxTimestamp)
	}
	return nil
}
