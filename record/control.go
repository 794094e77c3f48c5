package record

import (
	"encoding/binary"
	"fmt"

	"github.com/varvelog/varve/internal/base"
)

// ControlType is the kind of a control record, from its key.
type ControlType int16

// The control records of a partition's log (Kafka's ControlRecordType; the KRaft ones never stand in one).
const (
	ControlAbort  ControlType = 0
	ControlCommit ControlType = 1
)

// Sizes in bytes of version 0 of the control record's key (version int16, type int16) and of the marker's value
// (version int16, coordinatorEpoch int32).
const (
	controlKeySize = 4
	endMarkerSize  = 6
)

// EndMarker is the control record that ends a transaction on a partition (KIP-98).
type EndMarker struct {
	Commit           bool
	CoordinatorEpoch int32
}

// ParseControlKey reads the type from a control record's key. Later versions may only append fields.
func ParseControlKey(key []byte) (ControlType, error) {
	if len(key) < controlKeySize {
		return 0, base.MarkCorruption(fmt.Errorf("control record key of %d bytes, want %d", len(key), controlKeySize))
	}
	if v := int16(binary.BigEndian.Uint16(key)); v < 0 {
		return 0, base.MarkCorruption(fmt.Errorf("control record key of version %d", v))
	}
	return ControlType(binary.BigEndian.Uint16(key[2:])), nil
}

// ParseEndMarker reads the marker from a control record's key and value; ok is false where it is a control record of
// another type.
func ParseEndMarker(key, value []byte) (m EndMarker, ok bool, err error) {
	t, err := ParseControlKey(key)
	if err != nil || t != ControlAbort && t != ControlCommit {
		return EndMarker{}, false, err
	}
	if len(value) < endMarkerSize {
		return EndMarker{}, false, base.MarkCorruption(fmt.Errorf("end-of-transaction marker of %d bytes, want %d", len(value), endMarkerSize))
	}
	return EndMarker{Commit: t == ControlCommit, CoordinatorEpoch: int32(binary.BigEndian.Uint32(value[2:]))}, true, nil
}

// EndMarker reads the marker of a control batch, which has exactly one record; ok is false where the batch is no control
// batch, is empty (compaction keeps the header), or has another type.
func (b Batch) EndMarker() (m EndMarker, ok bool, err error) {
	if !b.IsControl() {
		return EndMarker{}, false, nil
	}
	eachErr := b.Each(func(r Record) bool {
		m, ok, err = ParseEndMarker(r.Key, r.Value)
		return false
	})
	if eachErr != nil {
		return EndMarker{}, false, eachErr
	}
	return m, ok, err
}

// BuildEndMarker makes the control batch that ends the transaction of a producer, at offset 0 with leader epoch -1: the
// partition sets both. nowMs is milliseconds since the Unix epoch.
func BuildEndMarker(m EndMarker, id base.ProducerID, epoch int16, nowMs int64) Batch {
	key, value := make([]byte, controlKeySize), make([]byte, endMarkerSize)
	if m.Commit {
		binary.BigEndian.PutUint16(key[2:], uint16(ControlCommit))
	}
	binary.BigEndian.PutUint32(value[2:], uint32(m.CoordinatorEpoch))
	h := BuildHeader{
		LeaderEpoch: base.NoLeaderEpoch, Transactional: true, Control: true,
		ProducerID: id, ProducerEpoch: epoch, BaseSequence: -1,
	}
	b, err := Build(h, []Record{{Timestamp: nowMs, Key: key, Value: value}})
	if err != nil {
		panic(fmt.Sprintf("bug: a batch of one marker: %v", err)) // Build fails only for records that this is none of
	}
	return b
}
