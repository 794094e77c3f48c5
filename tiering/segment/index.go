package segment

import (
	"fmt"
	"sort"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/tiering/wire"
)

// Locate returns the index of the last mark at or before offset, which is in [Base, End): the batch that holds the offset
// starts at that mark or behind it.
func (f *Footer) Locate(offset base.Offset) int {
	i := sort.Search(len(f.Index), func(i int) bool { return f.Index[i].Offset > offset })
	return max(i-1, 0)
}

// LocateTime returns the index of the mark whose stretch holds the first record with a timestamp of at least ts, false
// where no record of the segment has one.
func (f *Footer) LocateTime(ts int64) (int, bool) {
	i := sort.Search(len(f.Index), func(i int) bool { return f.Index[i].MaxTimestamp >= ts })
	return i, i < len(f.Index)
}

// StretchEnd is the position at which the stretch of mark i ends: where mark i+1 stands, or the body's end.
func (f *Footer) StretchEnd(i int) int64 {
	if i+1 < len(f.Index) {
		return f.Index[i+1].Position
	}
	return f.BodyBytes
}

// Align widens the body range [from, to) to whole checksum blocks within the body.
func (f *Footer) Align(from, to int64) (alignedFrom, alignedTo int64) {
	to = (to + f.BlockBytes - 1) / f.BlockBytes * f.BlockBytes
	return from / f.BlockBytes * f.BlockBytes, min(to, f.BodyBytes)
}

// Verify checks the block checksums of data, which are the body's bytes from an aligned position on up to an aligned one
// or the body's end. Damage is a marked corruption.
func (f *Footer) Verify(from int64, data []byte) error {
	for len(data) > 0 {
		block := from / f.BlockBytes
		n := min(f.BlockBytes, int64(len(data)))
		if from%f.BlockBytes != 0 || block >= int64(len(f.BlockCRCs)) || (n < f.BlockBytes && from+n != f.BodyBytes) {
			return fmt.Errorf("verify %d bytes at %d: not aligned to blocks of %d", n, from, f.BlockBytes)
		}
		if crc := wire.Checksum(data[:n]); crc != f.BlockCRCs[block] {
			return base.MarkCorruption(fmt.Errorf("block %d of segment %s [%d, %d): checksum %08x, want %08x", block, f.TP, f.Base, f.End, crc, f.BlockCRCs[block]))
		}
		data, from = data[n:], from+n
	}
	return nil
}

// MemoryBytes estimates what the decoded footer holds.
func (f *Footer) MemoryBytes() int64 {
	return int64(256 + 4*len(f.BlockCRCs) + 24*len(f.Index) + 16*len(f.Epochs) + 24*len(f.Aborted) + len(f.Producers))
}
