package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/varvelog/varve/internal/base"
)

// Batch is the bytes of one whole record batch of magic 2 (baseOffset to the last record). Accessors read the header in
// place; setters write it in place. A Batch is at least HeaderSize bytes long: take it from Split, Prepare or Build,
// because accessors panic on fewer.
type Batch []byte

// HeaderSize is the length in bytes of a batch without records.
const HeaderSize = 61

// NoTimestamp is Kafka's "no timestamp", in milliseconds.
const NoTimestamp int64 = -1

// Where the header's fields stand (FORMAT.md). Everything from attributes on is under the CRC.
const (
	posBaseOffset    = 0
	posLength        = 8
	posLeaderEpoch   = 12
	posMagic         = 16
	posCRC           = 17
	posAttributes    = 21
	posLastDelta     = 23
	posBaseTimestamp = 27
	posMaxTimestamp  = 35
	posProducerID    = 43
	posProducerEpoch = 51
	posBaseSequence  = 53
	posCount         = 57

	lengthOverhead = 12 // the bytes that batchLength does not count
	magic2         = 2
)

// The bits of attributes.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
)

// ErrIncomplete is in the chain of Split's error where the buffer ends before its first batch does.
var ErrIncomplete = errors.New("buffer ends inside a record batch")

// castagnoli is the table of CRC-32C, which hash/crc32 computes in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Split cuts the first batch off buf. It checks only the length fields and the magic; every error is a marked corruption,
// and errors.Is(err, ErrIncomplete) where there is only the beginning of a batch. The batch shares buf's memory but has
// no capacity beyond its end.
func Split(buf []byte) (b Batch, rest []byte, err error) {
	if len(buf) < HeaderSize {
		return nil, buf, base.MarkCorruption(fmt.Errorf("%d bytes, a header has %d: %w", len(buf), HeaderSize, ErrIncomplete))
	}
	n := int(int32(binary.BigEndian.Uint32(buf[posLength:])))
	if n < HeaderSize-lengthOverhead {
		return nil, buf, base.MarkCorruption(fmt.Errorf("record batch length %d is below the minimum %d", n, HeaderSize-lengthOverhead))
	}
	if m := buf[posMagic]; m != magic2 {
		return nil, buf, base.MarkCorruption(fmt.Errorf("record batch magic %d, want %d", m, magic2))
	}
	if len(buf)-lengthOverhead < n {
		return nil, buf, base.MarkCorruption(fmt.Errorf("%d bytes of a batch of %d: %w", len(buf), n+lengthOverhead, ErrIncomplete))
	}
	end := n + lengthOverhead
	return Batch(buf[:end:end]), buf[end:], nil
}

// BaseOffset is the offset of the first record that the batch was written with.
func (b Batch) BaseOffset() base.Offset {
	return base.Offset(binary.BigEndian.Uint64(b[posBaseOffset:]))
}

// LastOffset is the inclusive end of the batch's offsets; compaction keeps it even where it removes the last record.
func (b Batch) LastOffset() base.Offset { return b.BaseOffset() + base.Offset(b.lastDelta()) }

// NextOffset is the exclusive end of the batch's offsets.
func (b Batch) NextOffset() base.Offset { return b.LastOffset() + 1 }

// LeaderEpoch is the epoch of the leader that assigned the offsets (KIP-101). It is outside the CRC.
func (b Batch) LeaderEpoch() base.LeaderEpoch {
	return base.LeaderEpoch(binary.BigEndian.Uint32(b[posLeaderEpoch:]))
}

// BaseTimestamp is what the records' timestamp deltas are relative to, in milliseconds; where HasDeleteHorizon, it is also
// the delete horizon (KIP-534).
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the records in milliseconds or, of a LogAppendTime batch, the time of the append.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posMaxTimestamp:])) }

// ProducerID is the idempotent producer's id, or NoProducerID (KIP-98).
func (b Batch) ProducerID() base.ProducerID {
	return base.ProducerID(binary.BigEndian.Uint64(b[posProducerID:]))
}

// ProducerEpoch is the producer's epoch, -1 for none.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[posProducerEpoch:])) }

// BaseSequence is the sequence number of the first record, -1 for none.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[posBaseSequence:])) }

// LastSequence is the sequence number of the last record, -1 for none. Sequences wrap from 2147483647 to 0.
func (b Batch) LastSequence() int32 {
	first := b.BaseSequence()
	if first == -1 {
		return -1
	}
	delta := b.lastDelta()
	if first > math.MaxInt32-delta {
		return delta - (math.MaxInt32 - first) - 1
	}
	return first + delta
}

// Count is the number of records in the batch.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[posCount:])) }

// Codec is the compression of the records. Values 5 to 7 are undefined; Prepare refuses them.
func (b Batch) Codec() Codec { return Codec(b.attributes() & attrCodec) }

// IsLogAppendTime reports whether MaxTimestamp stands for the timestamp of every record.
func (b Batch) IsLogAppendTime() bool { return b.attributes()&attrLogAppendTime != 0 }

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b.attributes()&attrTransactional != 0 }

// IsControl reports whether the records are control records (control.go), which consumers do not show.
func (b Batch) IsControl() bool { return b.attributes()&attrControl != 0 }

// HasDeleteHorizon reports whether compaction has set the time after which tombstones and markers may go (KIP-534);
// it then is BaseTimestamp.
func (b Batch) HasDeleteHorizon() bool { return b.attributes()&attrDeleteHorizon != 0 }

// SetBaseOffset assigns the offsets. It is outside the CRC.
func (b Batch) SetBaseOffset(o base.Offset) {
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(o))
}

// SetLeaderEpoch sets the epoch that the offsets were assigned in. It is outside the CRC.
func (b Batch) SetLeaderEpoch(e base.LeaderEpoch) {
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(e))
}

// CheckCRC reports a marked corruption where the CRC-32C does not hold.
func (b Batch) CheckCRC() error {
	stored := binary.BigEndian.Uint32(b[posCRC:])
	if computed := b.computeCRC(); stored != computed {
		return base.MarkCorruption(fmt.Errorf("record batch at offset %d: stored crc %08x, computed %08x", b.BaseOffset(), stored, computed))
	}
	return nil
}

func (b Batch) attributes() uint16 { return binary.BigEndian.Uint16(b[posAttributes:]) }
func (b Batch) lastDelta() int32   { return int32(binary.BigEndian.Uint32(b[posLastDelta:])) }
func (b Batch) payload() []byte    { return b[HeaderSize:] }
func (b Batch) computeCRC() uint32 { return crc32.Checksum(b[posAttributes:], castagnoli) }
func (b Batch) setCRC()            { binary.BigEndian.PutUint32(b[posCRC:], b.computeCRC()) }
func (b Batch) setLength()         { binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-lengthOverhead)) }
func (b Batch) setAttributes(a uint16) {
	binary.BigEndian.PutUint16(b[posAttributes:], a)
}
func (b Batch) setMaxTimestamp(ms int64) {
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(ms))
}

// Codec is the compression of a batch (attributes bits 0-2).
type Codec int8

// The codecs of Kafka. CodecProducer never stands in a batch: in a Policy it keeps what the client chose.
const (
	CodecNone Codec = iota
	CodecGzip
	CodecSnappy
	CodecLZ4
	CodecZstd
	CodecProducer Codec = -1
)

// String names the codec as the topic setting compression.type does.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "uncompressed"
	case CodecGzip:
		return "gzip"
	case CodecSnappy:
		return "snappy"
	case CodecLZ4:
		return "lz4"
	case CodecZstd:
		return "zstd"
	case CodecProducer:
		return "producer"
	}
	return fmt.Sprintf("codec(%d)", int8(c))
}
