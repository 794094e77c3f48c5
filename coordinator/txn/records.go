package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/internal/base"
)

const (
	keyVersion      = 0
	valueVersion    = 1 // what Kafka writes with transaction.version 1 and 2; flexible
	maxValueVersion = 1
)

var errShort = errors.New("record ends early")

// recordKey is the key of a transactional id.
func recordKey(id string) []byte {
	k := kmsg.TxnMetadataKey{Version: keyVersion, TransactionalID: id}
	return k.AppendTo(nil)
}

// recordValue is the record of a transactional id as it stands.
func recordValue(t *transaction) []byte {
	v := kmsg.TxnMetadataValue{
		Version: valueVersion, ProducerID: int64(t.producerID), ProducerEpoch: t.epoch, TimeoutMillis: t.timeoutMs, State: t.state,
		LastUpdateTimestamp: t.updateMs, StartTimestamp: t.startMs, PreviousProducerID: int64(t.previousID),
		NextProducerID: int64(t.nextID), ClientTransactionVersion: t.version, NextProducerEpoch: noEpoch,
	}
	if t.state != stateEmpty {
		v.Topics = []kmsg.TxnMetadataValueTopic{} // not null, even without partitions
	}
	for i, tp := range t.partitions {
		if i == 0 || tp.Topic != t.partitions[i-1].Topic {
			v.Topics = append(v.Topics, kmsg.TxnMetadataValueTopic{Topic: tp.Topic})
		}
		last := &v.Topics[len(v.Topics)-1]
		last.Partitions = append(last.Partitions, tp.Partition)
	}
	return v.AppendTo(nil)
}

// parseKey reads a key; one of another type is not known and not ours.
func parseKey(key []byte) (id string, known bool, err error) {
	r := reader{b: key}
	if r.int16() != keyVersion && !r.bad {
		return "", false, nil
	}
	id = string(r.take(int(r.int16())))
	if r.bad {
		return "", false, fmt.Errorf("key of %d bytes: %w", len(key), errShort)
	}
	return id, true, nil
}

// parseValue makes a transaction of its record, versions 0 and 1.
//
// NB: kmsg's TxnMetadataValue writes exactly Kafka's bytes but is not for reading: its loop over the tags of a topic counts
// to what the bytes say, up to four billion, whether or not there are bytes left.
func parseValue(id string, value []byte) (*transaction, error) {
	r := reader{b: value}
	version := r.int16()
	if !r.bad && (version < 0 || version > maxValueVersion) {
		return nil, fmt.Errorf("value of version %d, known are 0 to %d", version, maxValueVersion)
	}
	r.flexible = version >= 1
	t := &transaction{id: id, previousID: base.NoProducerID, nextID: base.NoProducerID, retryEpoch: noEpoch}
	t.producerID, t.epoch, t.timeoutMs = base.ProducerID(r.int64()), r.int16(), r.int32()
	t.state = state(r.int8())
	for range r.length() {
		topic := r.string()
		for range r.length() {
			if p := r.int32(); !r.bad {
				t.partitions = append(t.partitions, base.TopicPartition{Topic: topic, Partition: p})
			}
		}
		r.tags(func(uint32, []byte) {})
	}
	t.updateMs, t.startMs = r.int64(), r.int64()
	r.tags(func(tag uint32, b []byte) {
		f := reader{b: b}
		switch tag {
		case 0:
			t.previousID = base.ProducerID(f.int64())
		case 1:
			t.nextID = base.ProducerID(f.int64())
		case 2:
			t.version = f.int16()
		}
		r.bad = r.bad || f.bad
	})
	switch {
	case r.bad:
		return nil, fmt.Errorf("value of %d bytes: %w", len(value), errShort)
	case t.state < stateEmpty || t.state > stateCompleteAbort:
		return nil, fmt.Errorf("state %d, which is never written", int8(t.state))
	case t.producerID < 0 || t.epoch < 0:
		return nil, fmt.Errorf("producer %d, epoch %d", t.producerID, t.epoch)
	}
	if !t.preparing() {
		t.nextID = base.NoProducerID
	}
	if t.state == stateEmpty {
		t.partitions = nil
	}
	slices.SortFunc(t.partitions, compare)
	t.partitions = slices.Compact(t.partitions)
	return t, nil
}

// reader takes big-endian fields off a byte slice. After the first field that is not there everything is zero and bad is true.
type reader struct {
	b        []byte
	flexible bool // lengths are unsigned varints plus one, and structures end with tagged fields
	bad      bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint(size int) (v uint64) {
	for _, c := range r.take(size) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) int8() int8   { return int8(r.uint(1)) }
func (r *reader) int16() int16 { return int16(r.uint(2)) }
func (r *reader) int32() int32 { return int32(r.uint(4)) }
func (r *reader) int64() int64 { return int64(r.uint(8)) }

func (r *reader) uvarint() uint32 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v != uint64(uint32(v)) {
		r.bad = true
		return 0
	}
	r.take(n)
	return uint32(v)
}

// length is that of an array, 0 for null: no more than there are bytes, since each element has one.
func (r *reader) length() int {
	n := int(r.int32At())
	if n > len(r.b) {
		r.bad = true
		return 0
	}
	return max(n, 0)
}

func (r *reader) int32At() int32 {
	if r.flexible {
		return int32(r.uvarint()) - 1
	}
	return r.int32()
}

func (r *reader) string() string {
	if r.flexible {
		return string(r.take(int(r.uvarint()) - 1))
	}
	return string(r.take(int(r.int16())))
}

// tags calls fn for the tagged fields at the end of a flexible structure.
func (r *reader) tags(fn func(tag uint32, b []byte)) {
	if !r.flexible {
		return
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		tag := r.uvarint()
		if b := r.take(int(r.uvarint())); !r.bad {
			fn(tag, b)
		}
	}
}
