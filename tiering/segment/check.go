package segment

import (
	"fmt"
	"slices"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Check recomputes everything about a whole segment: trailer, footer, block checksums, the CRC and order of every batch,
// index, range, largest timestamp and flags. Any difference is a marked corruption.
func Check(data []byte) (*Footer, error) {
	f, err := ParseFooter(data)
	if err != nil {
		return nil, err
	}
	if f.BodyBytes+f.FooterBytes != int64(len(data)) {
		return nil, base.MarkCorruption(fmt.Errorf("segment %s [%d, %d): %d bytes, want %d+%d", f.TP, f.Base, f.End, len(data), f.BodyBytes, f.FooterBytes))
	}
	body := data[:f.BodyBytes]
	if err := f.Verify(0, body); err != nil {
		return nil, err
	}
	if err := f.checkBatches(body); err != nil {
		return nil, base.MarkCorruption(fmt.Errorf("segment %s [%d, %d): %w", f.TP, f.Base, f.End, err))
	}
	return f, nil
}

// checkBatches walks the body and compares it with what the footer says of it.
func (f *Footer) checkBatches(body []byte) error {
	next, maxTs, flags, pos, mark := f.Base, int64(-1), Flags(0), int64(0), 0
	for len(body) > 0 {
		b, rest, err := record.Split(body)
		if err != nil {
			return fmt.Errorf("position %d: %w", pos, err)
		}
		if err := b.CheckCRC(); err != nil {
			return fmt.Errorf("position %d: %w", pos, err)
		}
		if b.BaseOffset() < next || b.NextOffset() > f.End {
			return fmt.Errorf("position %d: offsets [%d, %d) after %d", pos, b.BaseOffset(), b.NextOffset(), next)
		}
		maxTs = max(maxTs, b.MaxTimestamp())
		if b.IsTransactional() || b.IsControl() {
			flags |= HasTransactions
		}
		if mark < len(f.Index) && f.Index[mark].Position == pos {
			if f.Index[mark].Offset != b.BaseOffset() {
				return fmt.Errorf("index mark %d: offset %d, batch has %d", mark, f.Index[mark].Offset, b.BaseOffset())
			}
			mark++
		}
		next, pos, body = b.NextOffset(), pos+int64(len(b)), rest
		if mark > 0 && (pos == f.StretchEnd(mark-1)) && f.Index[mark-1].MaxTimestamp != maxTs {
			return fmt.Errorf("index mark %d: max timestamp %d, batches have %d", mark-1, f.Index[mark-1].MaxTimestamp, maxTs)
		}
	}
	if mark != len(f.Index) || maxTs != f.MaxTimestamp || flags != f.Flags {
		return fmt.Errorf("%d of %d index marks, max timestamp %d (footer %d), flags %d (footer %d)", mark, len(f.Index), maxTs, f.MaxTimestamp, flags, f.Flags)
	}
	if !slices.IsSortedFunc(f.Epochs, func(a, b base.EpochStart) int { return int(a.Epoch) - int(b.Epoch) }) {
		return fmt.Errorf("leader epochs out of order")
	}
	return nil
}
