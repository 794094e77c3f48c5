package dir

import (
	"encoding/binary"
	"fmt"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
)

// The trailer ends every object file. Integers are big endian.
//
//	0        8           16         20            24
//	+--------+-----------+----------+-------------+
//	| magic  | size      | CRC-32C  | CRC-32C of  |
//	| VARVOB | of object | of object| bytes 0..19 |
//	| J 1    | (bytes)   |          |             |
//	+--------+-----------+----------+-------------+
const (
	trailerBytes = 24
	trailerMagic = "VARVOBJ1" // the last byte is the version
)

func encodeTrailer(size int64, crc uint32) []byte {
	t := make([]byte, 0, trailerBytes)
	t = append(t, trailerMagic...)
	t = binary.BigEndian.AppendUint64(t, uint64(size))
	t = binary.BigEndian.AppendUint32(t, crc)
	return binary.BigEndian.AppendUint32(t, objstore.Checksum(t))
}

// decodeTrailer returns the size and the CRC-32C of the object in a file of fileSize bytes. Anything but what
// encodeTrailer wrote is corruption.
func decodeTrailer(t []byte, fileSize int64) (size int64, crc uint32, err error) {
	if len(t) != trailerBytes || string(t[:8]) != trailerMagic {
		return 0, 0, base.MarkCorruption(fmt.Errorf("no object trailer in %d bytes", fileSize))
	}
	if got, want := objstore.Checksum(t[:20]), binary.BigEndian.Uint32(t[20:]); got != want {
		return 0, 0, base.MarkCorruption(fmt.Errorf("object trailer has crc %08x, says %08x", got, want))
	}
	size = int64(binary.BigEndian.Uint64(t[8:]))
	if size <= 0 || size != fileSize-trailerBytes {
		return 0, 0, base.MarkCorruption(fmt.Errorf("object trailer says %d bytes, file has %d", size, fileSize-trailerBytes))
	}
	return size, binary.BigEndian.Uint32(t[16:]), nil
}
