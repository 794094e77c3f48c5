package segment

import (
	"encoding/binary"

	"github.com/varvelog/varve/tiering/wire"
)

// Reseal makes the checksums of a damaged tail right, so that a fuzzer gets behind them.
func Reseal(b []byte) []byte {
	if len(b) < TrailerSize {
		return b
	}
	out := append([]byte(nil), b...)
	t := out[len(out)-TrailerSize:]
	n := int(binary.BigEndian.Uint32(t[8:])) % (len(out) - TrailerSize + 1)
	binary.BigEndian.PutUint32(t[8:], uint32(n))
	binary.BigEndian.PutUint32(t[12:], wire.Checksum(out[len(out)-TrailerSize-n:len(out)-TrailerSize]))
	binary.BigEndian.PutUint16(t[16:], Version)
	binary.BigEndian.PutUint32(t[20:], wire.Checksum(t[:20]))
	copy(t[24:], trailerMagic)
	return out
}
