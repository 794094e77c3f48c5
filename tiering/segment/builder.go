package segment

import (
	"fmt"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering/wire"
)

// Layout says how fine checksums and index are. The zero value takes the defaults.
type Layout struct {
	BlockBytes int64 // bytes per checksum; default 64 KiB
	IndexBytes int64 // at least so many body bytes between two index marks; default 32 KiB
}

func (l *Layout) ensureDefaults() {
	if l.BlockBytes <= 0 {
		l.BlockBytes = 64 << 10
	}
	if l.IndexBytes <= 0 {
		l.IndexBytes = 32 << 10
	}
}

// Builder appends one segment to a buffer that may already hold others (a pack). Not safe for concurrent use.
type Builder struct {
	layout Layout
	buf    []byte
	start  int
	footer Footer
	next   base.Offset
	marked int64 // body position of the last index mark
}

// NewBuilder starts a segment at the end of buf. Of id it takes everything but End and MaxTimestamp, which follow from the
// batches. Base is where the segment's range begins: the first batch's base offset, or less where compaction left a hole.
func NewBuilder(buf []byte, id Identity, layout Layout) *Builder {
	layout.ensureDefaults()
	b := &Builder{layout: layout, buf: buf, start: len(buf)}
	b.footer.Identity = id
	b.footer.MaxTimestamp = -1
	return b
}

// Len is how many body bytes were added.
func (b *Builder) Len() int64 { return int64(len(b.buf) - b.start) }

// Add appends a copy of the batch. Batches come in offset order without overlap.
func (b *Builder) Add(batch record.Batch) error {
	first := batch.BaseOffset()
	switch {
	case b.Len() == 0 && first < b.footer.Base:
		return fmt.Errorf("batch at offset %d in a segment that starts at %d", first, b.footer.Base)
	case first < b.next:
		return fmt.Errorf("batch at offset %d after offset %d", first, b.next-1)
	}
	pos := b.Len()
	b.footer.MaxTimestamp = max(b.footer.MaxTimestamp, batch.MaxTimestamp())
	if n := len(b.footer.Index); n == 0 || pos-b.marked >= b.layout.IndexBytes {
		b.footer.Index = append(b.footer.Index, IndexEntry{Offset: first, Position: pos, MaxTimestamp: b.footer.MaxTimestamp})
		b.marked = pos
	} else {
		b.footer.Index[n-1].MaxTimestamp = b.footer.MaxTimestamp
	}
	if batch.IsTransactional() || batch.IsControl() {
		b.footer.Flags |= HasTransactions
	}
	b.buf = append(b.buf, batch...)
	b.next = batch.NextOffset()
	return nil
}

// Tail is the part of a footer that the caller knows: it does not follow from the batches.
type Tail struct {
	End       base.Offset // NoOffset: the offset after the last batch; more where the offsets behind it hold no records
	Epochs    []base.EpochStart
	Aborted   []AbortedTxn
	Producers []byte
}

// Built describes a finished segment.
type Built struct {
	Footer *Footer
	Pos    int64 // in the buffer
	Len    int64
	CRC32C uint32 // of the segment's bytes
}

// Finish appends footer and trailer and returns the grown buffer.
func (b *Builder) Finish(tail Tail) ([]byte, Built, error) {
	if b.Len() == 0 {
		return b.buf, Built{}, fmt.Errorf("segment of %s at offset %d has no batch", b.footer.TP, b.footer.Base)
	}
	f := &b.footer
	f.End = b.next
	if tail.End != base.NoOffset {
		if tail.End < b.next {
			return b.buf, Built{}, fmt.Errorf("segment of %s ends at %d, its batches at %d", f.TP, tail.End, b.next)
		}
		f.End = tail.End
	}
	f.Epochs, f.Aborted, f.Producers = epochsBelow(tail.Epochs, f.End), tail.Aborted, tail.Producers
	f.BodyBytes, f.BlockBytes = b.Len(), b.layout.BlockBytes
	f.BlockCRCs = blockChecksums(b.buf[b.start:], f.BlockBytes)
	e := wire.Encoder{B: b.buf}
	encodeFooter(&e, f)
	b.buf = e.B
	whole := b.buf[b.start:]
	return b.buf, Built{Footer: f, Pos: int64(b.start), Len: int64(len(whole)), CRC32C: wire.Checksum(whole)}, nil
}

func blockChecksums(body []byte, blockBytes int64) []uint32 {
	out := make([]uint32, 0, int64(len(body))/blockBytes+1)
	for len(body) > 0 {
		n := min(int64(len(body)), blockBytes)
		out = append(out, wire.Checksum(body[:n]))
		body = body[n:]
	}
	return out
}

// epochsBelow keeps the epochs that begin before end.
func epochsBelow(epochs []base.EpochStart, end base.Offset) []base.EpochStart {
	n := len(epochs)
	for n > 0 && epochs[n-1].Start >= end {
		n--
	}
	return epochs[:n:n]
}
