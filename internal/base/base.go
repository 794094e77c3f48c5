// Package base holds the typed identifiers and the error marks that every other package shares. It owns no behaviour
// and imports nothing of ours.
//
// Expected errors are the errors of franz-go's kerr package, wrapped with what was attempted; kafka/errors.go turns any
// error into a wire code. Corruption is marked with MarkCorruption. Everything else is a bug or an I/O error.
package base

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Offset numbers a record within a partition. Dense, assigned once (I2).
type Offset int64

// NoOffset is Kafka's "unknown offset".
const NoOffset Offset = -1

// LeaderEpoch numbers the leaderships of a partition (KIP-101).
type LeaderEpoch int32

// NoLeaderEpoch is Kafka's "unknown leader epoch".
const NoLeaderEpoch LeaderEpoch = -1

// ProducerID names an idempotent producer (KIP-98).
type ProducerID int64

// NoProducerID marks a batch of a producer without idempotence.
const NoProducerID ProducerID = -1

// BrokerID is Kafka's node id.
type BrokerID int32

// LogID names a partition in Pebble and in object names. It is never reused; 0 is not a log.
type LogID uint64

// String formats the id as object names and log lines show it: 16 hex digits.
func (l LogID) String() string { return fmt.Sprintf("%016x", uint64(l)) }

// ParseLogID is the inverse of LogID.String.
func ParseLogID(s string) (LogID, error) {
	if len(s) != 16 {
		return 0, fmt.Errorf("log id %q: want 16 hex digits", s)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return 0, fmt.Errorf("log id %q: %w", s, err)
	}
	var v uint64
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return LogID(v), nil
}

// TopicID is Kafka's topic UUID (KIP-516). The zero value is "no id".
type TopicID [16]byte

// NewTopicID returns a random, non-zero topic id.
func NewTopicID() TopicID { return TopicID(uuid.New()) }

// IsZero reports whether the id is absent.
func (t TopicID) IsZero() bool { return t == TopicID{} }

// String formats the id as a UUID.
func (t TopicID) String() string { return uuid.UUID(t).String() }

// MarshalText makes the id readable in JSON.
func (t TopicID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (t *TopicID) UnmarshalText(b []byte) error {
	u, err := uuid.ParseBytes(b)
	if err != nil {
		return fmt.Errorf("topic id %q: %w", b, err)
	}
	*t = TopicID(u)
	return nil
}

// TopicPartition names a partition as clients do.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String formats as Kafka does: topic-partition.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

// EpochStart says at which offset a leader epoch began.
type EpochStart struct {
	Epoch LeaderEpoch
	Start Offset
}

// CorruptionError marks bytes that are not what was written: the partition is taken out of service, nothing is skipped.
type CorruptionError struct{ Err error }

func (e *CorruptionError) Error() string { return "corruption: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }

// MarkCorruption marks err as corruption.
func MarkCorruption(err error) error { return &CorruptionError{Err: err} }

// IsCorruption reports whether err is marked as corruption.
func IsCorruption(err error) bool {
	var c *CorruptionError
	return errors.As(err, &c)
}
