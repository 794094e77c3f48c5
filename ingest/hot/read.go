package hot

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// Read returns whole batches from the one that contains from (where there is none, from the next), up to maxBytes, none whose
// NextOffset is beyond upTo. The first batch is returned even where it alone is larger than maxBytes. Empty where nothing is
// stored in the range. The batches are copies in one allocation that the caller owns. Their headers were checked against
// their keys; an error marked as corruption takes the log out of service (I14).
//
// NB: what was applied and not synced is returned too. upTo is the caller's high watermark, or log end (I3).
func (s *Store) Read(log base.LogID, from, upTo base.Offset, maxBytes int) ([]record.Batch, error) {
	return s.read(log, from, upTo, maxBytes, checkCheap)
}

// ReadVerified is Read with the CRC of every batch checked: for what leaves the broker for good (offload, recovery).
func (s *Store) ReadVerified(log base.LogID, from, upTo base.Offset, maxBytes int) ([]record.Batch, error) {
	return s.read(log, from, upTo, maxBytes, checkCRC)
}

func checkCheap(record.Batch) error { return nil }
func checkCRC(b record.Batch) error { return b.CheckCRC() }

func (s *Store) read(log base.LogID, from, upTo base.Offset, maxBytes int, check func(record.Batch) error) ([]record.Batch, error) {
	if upTo <= max(from, 0) {
		return nil, nil
	}
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.lifetime.exit()
	// Keys are last offsets: the bounds say it all.
	var lower, upper [offsetKeyLen]byte
	putKey(lower[:], spaceData, log, from)
	putKey(upper[:], spaceData, log, upTo)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower[:], UpperBound: upper[:]})
	var out []record.Batch
	if err == nil {
		out, err = copyBatches(it, log, maxBytes, check)
		err = errors.Join(err, it.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("read log %s from offset %d: %w", log, from, markCorruption(err))
	}
	s.stats.readBytes.Add(sizeOf(out))
	return out, nil
}

// Size is how many bytes of whole batches [from, upTo) holds. It reads keys, not batches.
func (s *Store) Size(log base.LogID, from, upTo base.Offset) (bytes int64, err error) {
	if upTo <= max(from, 0) {
		return 0, nil
	}
	if err := s.use(); err != nil {
		return 0, err
	}
	defer s.lifetime.exit()
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: offsetKey(spaceData, log, from), UpperBound: offsetKey(spaceData, log, upTo),
	})
	if err == nil {
		bytes, err = sizeOfValues(it)
		err = errors.Join(err, it.Close())
	}
	if err != nil {
		return 0, fmt.Errorf("size of log %s from offset %d: %w", log, from, markCorruption(err))
	}
	return bytes, nil
}

func sizeOfValues(it *pebble.Iterator) (bytes int64, err error) {
	defer damageOfPanic(&err)
	for ok := it.First(); ok; ok = it.Next() {
		v := it.LazyValue()
		bytes += int64(v.Len())
	}
	return bytes, it.Error()
}

// copyBatches walks the iterator twice, first for the sizes (which touches keys only), then for the bytes: one allocation of
// the right size costs less than a copy through a scratch buffer.
func copyBatches(it *pebble.Iterator, log base.LogID, maxBytes int, check func(record.Batch) error) (out []record.Batch, err error) {
	defer damageOfPanic(&err)
	count, size := 0, 0
	for ok := it.First(); ok; ok = it.Next() {
		v := it.LazyValue()
		if count > 0 && size+v.Len() > maxBytes {
			break
		}
		count, size = count+1, size+v.Len()
		if size >= maxBytes {
			break
		}
	}
	if count == 0 {
		return nil, it.Error()
	}
	out = make([]record.Batch, 0, count)
	buf := make([]byte, 0, size)
	for ok := it.First(); ok && len(out) < count; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		start := len(buf)
		buf = append(buf, v...)
		b := record.Batch(buf[start:len(buf):len(buf)])
		if err := checkStored(it.Key(), log, b, check); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, it.Error()
}

// damageOfPanic turns a panic into a marked corruption: Pebble 2.1.7 panics where the footer of a value file is damaged
// (reportCorruption knows tables only). It holds no lock then, and one damaged log must not end the broker (I14).
func damageOfPanic(err *error) {
	if r := recover(); r != nil {
		*err = base.MarkCorruption(fmt.Errorf("pebble panicked: %v", r))
	}
}

// checkStored compares a stored batch with its key.
func checkStored(key []byte, log base.LogID, b record.Batch, check func(record.Batch) error) error {
	keyLog, keyLast, ok := splitKey(key, spaceData)
	if !ok || keyLog != log {
		return base.MarkCorruption(fmt.Errorf("key %x is not a batch of log %s", key, log))
	}
	_, last, err := checkHeader(b)
	if err == nil && last != keyLast {
		err = fmt.Errorf("last offset is %d", last)
	}
	if err == nil {
		err = check(b)
	}
	if err != nil {
		return base.MarkCorruption(fmt.Errorf("batch that ends at offset %d: %w", keyLast, err))
	}
	return nil
}

// checkHeader checks the fields of a batch that cost nothing to check, and returns its first and last offset.
func checkHeader(b record.Batch) (first, last base.Offset, err error) {
	whole, rest, err := record.Split(b)
	if err != nil {
		return base.NoOffset, base.NoOffset, err
	}
	first, last = whole.BaseOffset(), whole.LastOffset()
	switch {
	case len(rest) > 0:
		err = fmt.Errorf("%d bytes after the end of the batch", len(rest))
	case first < 0 || last < first:
		err = fmt.Errorf("the batch runs from offset %d to %d", first, last)
	}
	return first, last, err
}

func sizeOf(bs []record.Batch) (n int64) {
	for _, b := range bs {
		n += int64(len(b))
	}
	return n
}
