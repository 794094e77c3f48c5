package ingest

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// dedupBatches is how many of its last batches a producer may repeat (Kafka: five in flight).
const dedupBatches = 5

// batchMark is what is remembered of a producer's batch.
type batchMark struct {
	firstSeq, lastSeq int32
	lastOffset        base.Offset
	offsetDelta       int32
	timestampMs       int64 // max timestamp of the batch
}

func (m *batchMark) baseOffset() base.Offset { return m.lastOffset - base.Offset(m.offsetDelta) }

// producerState is one producer on one partition (KIP-98; Kafka's ProducerStateEntry).
type producerState struct {
	epoch   int16
	batches []batchMark // the last dedupBatches, ascending
}

// producerTable is the producer state of a partition. The partition's lock guards it.
type producerTable map[base.ProducerID]*producerState

// check decides on a batch before it is appended: nil, nil to append it; the mark of the stored batch that it repeats; or
// kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch (facts/protocol.md 3.2).
func (t producerTable) check(b record.Batch) (*batchMark, error) {
	id := b.ProducerID()
	if id < 0 {
		return nil, nil
	}
	s := t[id]
	if s == nil || len(s.batches) == 0 {
		return nil, nil
	}
	epoch, first, last := b.ProducerEpoch(), b.BaseSequence(), b.LastSequence()
	switch {
	case epoch < s.epoch:
		return nil, fmt.Errorf("producer %d: epoch %d, current %d: %w", id, epoch, s.epoch, kerr.InvalidProducerEpoch)
	case epoch > s.epoch:
		if first != 0 {
			return nil, fmt.Errorf("producer %d: new epoch %d starts at sequence %d: %w", id, epoch, first, kerr.OutOfOrderSequenceNumber)
		}
		return nil, nil
	}
	for i := range s.batches {
		if s.batches[i].firstSeq == first && s.batches[i].lastSeq == last {
			return &s.batches[i], nil
		}
	}
	if want := nextSequence(s.batches[len(s.batches)-1].lastSeq); first != want {
		return nil, fmt.Errorf("producer %d: sequence %d, expected %d: %w", id, first, want, kerr.OutOfOrderSequenceNumber)
	}
	return nil, nil
}

func nextSequence(last int32) int32 {
	if last == math.MaxInt32 {
		return 0
	}
	return last + 1
}

// note remembers an appended batch. Above limit producers the longest idle ones are forgotten.
func (t producerTable) note(b record.Batch, limit int64) {
	id := b.ProducerID()
	if id < 0 || b.IsControl() {
		return
	}
	s := t[id]
	if s == nil {
		if int64(len(t)) >= limit {
			t.shrink(limit - limit/8)
		}
		s = &producerState{epoch: b.ProducerEpoch()}
		t[id] = s
	}
	if s.epoch != b.ProducerEpoch() {
		s.epoch, s.batches = b.ProducerEpoch(), nil
	}
	if len(s.batches) == dedupBatches {
		copy(s.batches, s.batches[1:])
		s.batches = s.batches[:dedupBatches-1]
	}
	s.batches = append(s.batches, batchMark{
		firstSeq: b.BaseSequence(), lastSeq: b.LastSequence(), lastOffset: b.LastOffset(),
		offsetDelta: int32(b.LastOffset() - b.BaseOffset()), timestampMs: b.MaxTimestamp(),
	})
}

// shrink leaves less than limit producers: those with the newest batches.
func (t producerTable) shrink(limit int64) {
	type used struct {
		id   base.ProducerID
		last base.Offset
	}
	all := make([]used, 0, len(t))
	for id, s := range t {
		u := used{id, base.NoOffset}
		if n := len(s.batches); n > 0 {
			u.last = s.batches[n-1].lastOffset
		}
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b used) int { return cmp.Compare(a.last, b.last) })
	for _, u := range all[:max(0, int64(len(all))-max(0, limit-1))] {
		delete(t, u.id)
	}
}

// expire forgets producers whose last batch is older than beforeMs (producer.id.expiration.ms).
func (t producerTable) expire(beforeMs int64) (n int) {
	for id, s := range t {
		if len(s.batches) > 0 && s.batches[len(s.batches)-1].timestampMs < beforeMs {
			delete(t, id)
			n++
		}
	}
	return n
}

const producerSnapshotVersion = 1

// encode appends the snapshot: version u8, count uvarint, then per producer id, epoch, batches (all varints).
func (t producerTable) encode(dst []byte) []byte {
	dst = append(dst, producerSnapshotVersion)
	dst = binary.AppendUvarint(dst, uint64(len(t)))
	for id, s := range t {
		dst = binary.AppendVarint(dst, int64(id))
		dst = binary.AppendVarint(dst, int64(s.epoch))
		dst = binary.AppendUvarint(dst, uint64(len(s.batches)))
		for i := range s.batches {
			m := &s.batches[i]
			dst = binary.AppendVarint(dst, int64(m.firstSeq))
			dst = binary.AppendVarint(dst, int64(m.lastSeq))
			dst = binary.AppendVarint(dst, int64(m.lastOffset))
			dst = binary.AppendVarint(dst, int64(m.offsetDelta))
			dst = binary.AppendVarint(dst, m.timestampMs)
		}
	}
	return dst
}

var errSnapshot = errors.New("producer snapshot is damaged")

// decodeProducers is the inverse of encode; empty bytes are an empty table.
func decodeProducers(src []byte) (producerTable, error) {
	t := producerTable{}
	if len(src) == 0 {
		return t, nil
	}
	d := varints{src: src[1:]}
	if src[0] != producerSnapshotVersion {
		return nil, base.MarkCorruption(fmt.Errorf("%w: version %d", errSnapshot, src[0]))
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		id := base.ProducerID(d.varint())
		s := &producerState{epoch: int16(d.varint())}
		for k := d.uvarint(); k > 0 && !d.bad; k-- {
			s.batches = append(s.batches, batchMark{
				firstSeq: int32(d.varint()), lastSeq: int32(d.varint()), lastOffset: base.Offset(d.varint()),
				offsetDelta: int32(d.varint()), timestampMs: d.varint(),
			})
			if len(s.batches) > dedupBatches {
				d.bad = true
			}
		}
		t[id] = s
	}
	if d.bad || len(d.src) != 0 {
		return nil, base.MarkCorruption(errSnapshot)
	}
	return t, nil
}

// varints reads a run of varints; bad is set by the first one that is not there.
type varints struct {
	src []byte
	bad bool
}

func (d *varints) varint() int64 {
	v, n := binary.Varint(d.src)
	return advance(d, v, n)
}

func (d *varints) uvarint() uint64 {
	v, n := binary.Uvarint(d.src)
	return advance(d, v, n)
}

func advance[T int64 | uint64](d *varints, v T, n int) T {
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.src = d.src[n:]
	return v
}
