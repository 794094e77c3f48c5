package history

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

// Value is the head of every record's value: its producer, from 1, and that producer's sequence in the partition, from 0.
type Value struct{ Producer, Seq uint32 }

const valueOverhead = 12 // head and CRC

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode appends noise of so many bytes, which compresses to about half, and a CRC-32C of it all.
func (v Value) Encode(noise int, rng *rand.Rand) []byte {
	b := make([]byte, 8, valueOverhead+noise)
	binary.BigEndian.PutUint32(b, v.Producer)
	binary.BigEndian.PutUint32(b[4:], v.Seq)
	for range noise {
		b = append(b, byte('a'+rng.IntN(8)))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Decode reports false where the value is not what Encode made.
func Decode(b []byte) (Value, bool) {
	if len(b) < valueOverhead {
		return Value{}, false
	}
	n := len(b) - 4
	v := Value{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	return v, crc32.Checksum(b[:n], castagnoli) == binary.BigEndian.Uint32(b[n:])
}
