package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/varvelog/varve/objstore"
)

const maxBlockBytes = 1 << 30

// objectID stands for a key: the first half of its SHA-256.
type objectID [16]byte

func objectOf(key string) objectID {
	sum := sha256.Sum256([]byte(key))
	return objectID(sum[:16])
}

// blockID names a block: bytes [index*BlockBytes, (index+1)*BlockBytes) of the object, fewer at its end.
type blockID struct {
	object objectID
	index  int64
}

// blockRef is a block and what is needed to load it.
type blockRef struct {
	id         blockID
	key        string
	objectSize int64 // bytes
	off        int64 // of the block in the object
	size       int   // bytes of the block
}

func (c *Cache) refOf(object objectID, key string, objectSize, index int64) blockRef {
	off := index * int64(c.opts.BlockBytes)
	return blockRef{
		id: blockID{object: object, index: index}, key: key, objectSize: objectSize,
		off: off, size: int(min(int64(c.opts.BlockBytes), objectSize-off)),
	}
}

// A block file is a header, the key, and the block's bytes. Integers are big endian. The first checksum covers the rest of
// the header and the key; the second one the block.
//
//	0        8       12       16            24       32          36     38      38+n
//	+--------+-------+--------+-------------+--------+-----------+------+-------+-------+
//	| magic  | CRC of| CRC of | object size | offset | length of | n    | key   | block |
//	| VARVBLK| header| block  | (bytes)     | of the | the block | (u16)|       |       |
//	| 1      |       |        |             | block  |           |      |       |       |
//	+--------+-------+--------+-------------+--------+-----------+------+-------+-------+
const (
	blockMagic        = "VARVBLK1" // the last byte is the version
	blockHeaderBytes  = 38
	blockHeaderCRCEnd = 12 // the header's checksum covers what follows it
)

var errBadBlock = errors.New("damaged block file")

func encodeBlockHeader(ref blockRef, data []byte) []byte {
	h := make([]byte, 0, blockHeaderBytes+len(ref.key))
	h = append(h, blockMagic...)
	h = binary.BigEndian.AppendUint32(h, 0)
	h = binary.BigEndian.AppendUint32(h, objstore.Checksum(data))
	h = binary.BigEndian.AppendUint64(h, uint64(ref.objectSize))
	h = binary.BigEndian.AppendUint64(h, uint64(ref.off))
	h = binary.BigEndian.AppendUint32(h, uint32(len(data)))
	h = binary.BigEndian.AppendUint16(h, uint16(len(ref.key)))
	h = append(h, ref.key...)
	binary.BigEndian.PutUint32(h[8:], objstore.Checksum(h[blockHeaderCRCEnd:]))
	return h
}

// decodeBlock returns the block in the file, which must be the one that ref names. The result shares memory with file.
func decodeBlock(ref blockRef, file []byte) ([]byte, error) {
	n := blockHeaderBytes + len(ref.key)
	if len(file) != n+ref.size || string(file[:8]) != blockMagic {
		return nil, fmt.Errorf("%w: %d bytes, want %d", errBadBlock, len(file), n+ref.size)
	}
	if objstore.Checksum(file[blockHeaderCRCEnd:n]) != binary.BigEndian.Uint32(file[8:]) {
		return nil, fmt.Errorf("%w: header checksum", errBadBlock)
	}
	data := file[n:]
	if string(file[blockHeaderBytes:n]) != ref.key || int(binary.BigEndian.Uint16(file[36:])) != len(ref.key) ||
		binary.BigEndian.Uint64(file[16:]) != uint64(ref.objectSize) || binary.BigEndian.Uint64(file[24:]) != uint64(ref.off) ||
		binary.BigEndian.Uint32(file[32:]) != uint32(ref.size) {
		return nil, fmt.Errorf("%w: it holds another block", errBadBlock)
	}
	if objstore.Checksum(data) != binary.BigEndian.Uint32(file[12:]) {
		return nil, fmt.Errorf("%w: block checksum", errBadBlock)
	}
	return data, nil
}
