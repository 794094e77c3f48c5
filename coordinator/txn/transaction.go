package txn

import (
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/internal/base"
)

type state = kmsg.TransactionState

const (
	stateEmpty          = kmsg.TransactionStateEmpty
	stateOngoing        = kmsg.TransactionStateOngoing
	statePrepareCommit  = kmsg.TransactionStatePrepareCommit
	statePrepareAbort   = kmsg.TransactionStatePrepareAbort
	stateCompleteCommit = kmsg.TransactionStateCompleteCommit
	stateCompleteAbort  = kmsg.TransactionStateCompleteAbort
)

const (
	noEpoch     = -1
	noTimestamp = -1

	// lastEpoch is the highest epoch that a client is given. The one above it is for fencing and for the marker of the
	// last transaction; then a new producer id is taken.
	lastEpoch = math.MaxInt16 - 1

	// The transaction versions that make a difference here: from 2 on the epoch is bumped at each end (KIP-890).
	version0 = 0
	version2 = 2
)

// transaction is what is known of a transactional id. It is immutable: a transition makes a new one, which is what makes
// taking it back simple. All but retryEpoch is in the record.
type transaction struct {
	id         string
	state      state
	producerID base.ProducerID
	previousID base.ProducerID // before the last transition; differs from producerID where that one changed it
	nextID     base.ProducerID // in Prepare*: takes over at Complete, since the epochs are used up
	epoch      int16
	retryEpoch int16 // a request with this epoch may be one whose answer was lost; noEpoch for none
	timeoutMs  int32
	startMs    int64 // of the open transaction, or of the last one; noTimestamp in Empty
	updateMs   int64
	version    int16                 // the transaction version of the client's last request
	partitions []base.TopicPartition // sorted
}

func exhausted(epoch int16) bool { return epoch >= lastEpoch }

// preparing is true while the markers are being written.
func (t *transaction) preparing() bool {
	return t.state == statePrepareCommit || t.state == statePrepareAbort
}

// next is a copy to make a transition of.
func (t *transaction) next(s state, nowMs int64) *transaction {
	n := *t
	n.state, n.previousID, n.updateMs = s, t.producerID, nowMs
	return &n
}

// initialised is Empty with the given producer.
func (t *transaction) initialised(id base.ProducerID, epoch, retry int16, timeoutMs int32, nowMs int64) *transaction {
	n := t.next(stateEmpty, nowMs)
	n.producerID, n.epoch, n.retryEpoch, n.timeoutMs = id, epoch, retry, timeoutMs
	n.partitions, n.startMs = nil, noTimestamp
	return n
}

// with is Ongoing with more partitions.
func (t *transaction) with(more []base.TopicPartition, version int16, nowMs int64) *transaction {
	n := t.next(stateOngoing, nowMs)
	n.version = version
	n.partitions = slices.Concat(t.partitions, more)
	slices.SortFunc(n.partitions, compare)
	n.partitions = slices.Compact(n.partitions)
	if t.state != stateOngoing {
		n.startMs = nowMs
	}
	return n
}

func (t *transaction) has(p base.TopicPartition) bool {
	_, ok := slices.BinarySearchFunc(t.partitions, p, compare)
	return ok
}

func compare(a, b base.TopicPartition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// prepared is the decision. From version 2 on it bumps the epoch, to fence what the producer may still send; nextID is
// the producer id to go on with where that uses up the epochs.
func (t *transaction) prepared(commit bool, version int16, nextID base.ProducerID, nowMs int64) *transaction {
	n := t.next(statePrepareAbort, nowMs)
	if commit {
		n.state = statePrepareCommit
	}
	if t.state != stateOngoing {
		n.startMs = nowMs // the abort of nothing, which is a transaction nevertheless
	}
	n.version, n.nextID = version, nextID
	if version >= version2 {
		n.retryEpoch = t.epoch
		if t.epoch < math.MaxInt16 {
			n.epoch++
		}
	}
	return n
}

// completed is what follows when the markers are written.
func (t *transaction) completed(nowMs int64) *transaction {
	n := t.next(stateCompleteAbort, nowMs)
	if t.state == statePrepareCommit {
		n.state = stateCompleteCommit
	}
	if t.nextID != base.NoProducerID {
		n.producerID, n.epoch, n.nextID = t.nextID, 0, base.NoProducerID
	}
	n.partitions = nil
	return n
}

// mayFollow is the table of transitions.
func mayFollow(before, after state) bool {
	switch after {
	case stateEmpty:
		return before != stateOngoing && before != statePrepareCommit && before != statePrepareAbort
	case stateOngoing, statePrepareAbort: // the abort of nothing included
		return before != statePrepareCommit && before != statePrepareAbort
	case statePrepareCommit:
		return before == stateOngoing
	case stateCompleteCommit:
		return before == statePrepareCommit
	case stateCompleteAbort:
		return before == statePrepareAbort
	}
	return false
}
