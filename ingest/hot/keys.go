package hot

import (
	"encoding/binary"
	"math"

	"github.com/varvelog/varve/internal/base"
)

// The key schema. Every key starts with its space, then the log id, then (but for 'm') an offset, both big endian, so that
// Pebble's byte order is the order of logs and offsets.
//
//	'd' logID lastOffset    a record batch, under the offset of its *last* record
//	'i' logID offset        an IndexEntry
//	'm' logID               a Meta
//	's' logID lastOffset    a Sealed, under the last offset of its range
//	'u'                     the id of the store, written when it is created
//
// Batches are found under their last offset because then a key alone answers every question: the batch that contains x is the
// first at or after x (one SeekGE), the log ends after the greatest key (one SeekLT, no value is read, so start-up does not
// touch the data blocks), a batch lies below a high watermark h if its key does, and [from, to) names exactly the batches to
// drop, both for a trim (a batch that reaches to is kept whole) and for a truncation (one that reaches from goes whole, as in
// Kafka's LogSegment.truncateTo).
const (
	spaceData   = 'd'
	spaceIndex  = 'i'
	spaceMeta   = 'm'
	spaceSealed = 's'
	spaceID     = 'u'
)

const (
	metaKeyLen   = 1 + 8
	offsetKeyLen = 1 + 8 + 8
)

// putKey writes an offset key into dst, which is offsetKeyLen long.
func putKey(dst []byte, space byte, log base.LogID, off base.Offset) {
	dst[0] = space
	binary.BigEndian.PutUint64(dst[1:], uint64(log))
	binary.BigEndian.PutUint64(dst[9:], uint64(max(off, 0)))
}

// offsetKey returns an offset key. A negative offset counts as 0: bounds like NoOffset mean "from the start".
func offsetKey(space byte, log base.LogID, off base.Offset) []byte {
	k := make([]byte, offsetKeyLen)
	putKey(k, space, log, off)
	return k
}

// logKey returns the first possible key of a log in a space; in 'm' it is the key.
func logKey(space byte, log base.LogID) []byte {
	return binary.BigEndian.AppendUint64([]byte{space}, uint64(log))
}

// afterLog returns the exclusive bound of a log's keys in a space.
func afterLog(space byte, log base.LogID) []byte {
	if log == math.MaxUint64 {
		return []byte{space + 1}
	}
	return logKey(space, log+1)
}

// splitKey takes an offset key apart. ok is false where it is not one of space.
func splitKey(k []byte, space byte) (log base.LogID, off base.Offset, ok bool) {
	if len(k) != offsetKeyLen || k[0] != space {
		return 0, 0, false
	}
	o := binary.BigEndian.Uint64(k[9:])
	if o > math.MaxInt64 {
		return 0, 0, false
	}
	return base.LogID(binary.BigEndian.Uint64(k[1:])), base.Offset(o), true
}

// splitMetaKey takes an 'm' key apart.
func splitMetaKey(k []byte) (log base.LogID, ok bool) {
	if len(k) != metaKeyLen || k[0] != spaceMeta {
		return 0, false
	}
	return base.LogID(binary.BigEndian.Uint64(k[1:])), true
}
