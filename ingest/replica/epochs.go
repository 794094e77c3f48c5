package replica

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// The epochs of a log are a list that ascends strictly in epoch and in start. An entry at the log end is the epoch of a leader
// that has appended nothing yet.

// EpochEnd answers OffsetForLeaderEpoch as Kafka's LeaderEpochFileCache.endOffsetFor does (KIP-101, KIP-279): the largest
// epoch <= want and its exclusive end, or -1, -1 where nothing is known. latest is the epoch that the log is led in, end its
// exclusive end.
func EpochEnd(epochs []base.EpochStart, latest base.LeaderEpoch, end base.Offset, want base.LeaderEpoch) (base.LeaderEpoch, base.Offset) {
	switch {
	case want < 0 || want > latest:
		return base.NoLeaderEpoch, base.NoOffset
	case want == latest:
		return want, end
	case len(epochs) == 0:
		return base.NoLeaderEpoch, base.NoOffset
	case want < epochs[0].Epoch:
		return want, epochs[0].Start
	}
	i := len(epochs) - 1
	for epochs[i].Epoch > want {
		i--
	}
	if i == len(epochs)-1 {
		return epochs[i].Epoch, end
	}
	return epochs[i].Epoch, epochs[i+1].Start
}

// Diverging is what a leader answers a fetch from offset whose last record has the epoch last (KIP-595): nil where the
// follower's log is a prefix of the leader's, else the epoch and the end that the follower should truncate to.
// kerr.OffsetOutOfRange where the leader does not know. last < 0 is a follower without records: it cannot diverge.
func Diverging(epochs []base.EpochStart, latest base.LeaderEpoch, end, offset base.Offset, last base.LeaderEpoch) (*base.EpochStart, error) {
	if last < 0 {
		return nil, nil
	}
	epoch, upTo := EpochEnd(epochs, latest, end, last)
	switch {
	case epoch < 0:
		return nil, fmt.Errorf("last fetched epoch %d: %w", last, kerr.OffsetOutOfRange)
	case epoch < last || upTo < offset:
		return &base.EpochStart{Epoch: epoch, Start: upTo}, nil
	}
	return nil, nil
}

// TruncationPoint is where a follower with these epochs and this end cuts its log when its leader answered that diverging.Epoch
// ended at diverging.Start there. Where the follower does not know that epoch it cuts off all larger ones and asks again
// (KIP-279; AbstractFetcherThread.getOffsetTruncationState).
func TruncationPoint(epochs []base.EpochStart, end base.Offset, diverging base.EpochStart) base.Offset {
	for i := len(epochs) - 1; i >= 0; i-- {
		switch {
		case epochs[i].Epoch > diverging.Epoch:
			end = min(end, epochs[i].Start)
		case epochs[i].Epoch == diverging.Epoch:
			return min(end, diverging.Start)
		default:
			return end
		}
	}
	return min(end, diverging.Start) // every epoch here is larger than the leader's
}

// TruncateEpochs drops what begins at or after end. It does not modify epochs.
func TruncateEpochs(epochs []base.EpochStart, end base.Offset) []base.EpochStart {
	n := len(epochs)
	for n > 0 && epochs[n-1].Start >= end {
		n--
	}
	return slices.Clip(epochs[:n])
}

// AssignEpoch notes that an epoch begins at start: of a new leader at its log end, of a follower at the first batch of the
// epoch. Entries that the new one overtakes go, as in LeaderEpochFileCache.assign. It does not modify epochs.
func AssignEpoch(epochs []base.EpochStart, epoch base.LeaderEpoch, start base.Offset) []base.EpochStart {
	kept := TruncateEpochs(epochs, start) // not what is there now: an entry at the log end may have a larger epoch
	if n := len(kept); n > 0 && kept[n-1].Epoch >= epoch {
		return kept
	}
	return append(kept, base.EpochStart{Epoch: epoch, Start: start})
}

// lastEpoch is the epoch of the last record of a log that ends at end, -1 where it has none. An entry at the end is an epoch
// without records: to fetch with it would ask the leader about something that the log does not hold.
func lastEpoch(epochs []base.EpochStart, end base.Offset) base.LeaderEpoch {
	for i := len(epochs) - 1; i >= 0; i-- {
		if epochs[i].Start < end {
			return epochs[i].Epoch
		}
	}
	return base.NoLeaderEpoch
}
