package replica

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
)

// A log of [10, 50): epoch 2 from 10, epoch 5 from 20, epoch 6 from 40.
var someEpochs = []base.EpochStart{{Epoch: 2, Start: 10}, {Epoch: 5, Start: 20}, {Epoch: 6, Start: 40}}

func TestEpochEnd(t *testing.T) {
	f := func(want, epoch base.LeaderEpoch, end base.Offset) {
		t.Helper()
		if e, o := EpochEnd(someEpochs, 8, 50, want); e != epoch || o != end {
			t.Errorf("end of %d: %d %d, want %d %d", want, e, o, epoch, end)
		}
	}
	f(-1, -1, -1) // facts/protocol.md 3.8, line by line
	f(9, -1, -1)
	f(8, 8, 50)
	f(7, 6, 50) // led without a record
	f(6, 6, 50)
	f(5, 5, 40)
	f(4, 2, 20)
	f(2, 2, 20)
	f(1, 1, 10) // below the first known
	if e, o := EpochEnd(nil, 3, 50, 2); e != -1 || o != -1 {
		t.Errorf("no epochs: %d %d", e, o)
	}
}

func TestDiverging(t *testing.T) {
	f := func(offset base.Offset, last base.LeaderEpoch, want *base.EpochStart, code error) {
		t.Helper()
		d, err := Diverging(someEpochs, 6, 50, offset, last)
		if !errors.Is(err, code) || (d == nil) != (want == nil) || d != nil && *d != *want {
			t.Errorf("fetch from %d after epoch %d: %v %v, want %v %v", offset, last, d, err, want, code)
		}
	}
	f(50, 6, nil, nil)
	f(15, 2, nil, nil)
	f(30, -1, nil, nil) // no records: a prefix of every log
	f(30, 2, &base.EpochStart{Epoch: 2, Start: 20}, nil)
	f(51, 6, &base.EpochStart{Epoch: 6, Start: 50}, nil)
	f(30, 4, &base.EpochStart{Epoch: 2, Start: 20}, nil)
	f(30, 7, nil, kerr.OffsetOutOfRange)
}

func TestTruncationPoint(t *testing.T) {
	f := func(epoch base.LeaderEpoch, end, want base.Offset) {
		t.Helper()
		if got := TruncationPoint(someEpochs, 50, base.EpochStart{Epoch: epoch, Start: end}); got != want {
			t.Errorf("leader's epoch %d ends at %d: %d, want %d", epoch, end, got, want)
		}
	}
	f(6, 45, 45)
	f(6, 60, 50) // not beyond the own end
	f(5, 30, 30)
	f(5, 60, 40) // nor beyond the own end of the epoch
	f(4, 30, 20) // KIP-279: an epoch that is not known here: what is above it goes, and the next fetch asks again
	f(1, 12, 10)
	f(1, 5, 5)
}

func TestAssignAndTruncateEpochs(t *testing.T) {
	before := slices.Clone(someEpochs)
	f := func(got []base.EpochStart, want ...base.EpochStart) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	f(TruncateEpochs(someEpochs, 40), before[:2]...)
	f(TruncateEpochs(someEpochs, 41), before...)
	f(AssignEpoch(someEpochs, 8, 50), append(slices.Clone(before), base.EpochStart{Epoch: 8, Start: 50})...)
	f(AssignEpoch(someEpochs, 6, 45), before...)
	f(AssignEpoch(someEpochs, 7, 40), before[0], before[1], base.EpochStart{Epoch: 7, Start: 40})
	// An epoch that this broker led without a record gives way to an older one's records.
	f(AssignEpoch([]base.EpochStart{{Epoch: 3, Start: 0}, {Epoch: 5, Start: 9}}, 4, 9), base.EpochStart{Epoch: 3, Start: 0}, base.EpochStart{Epoch: 4, Start: 9})
	f(someEpochs, before...) // none of these modifies its argument
	if e := lastEpoch([]base.EpochStart{{Epoch: 3, Start: 0}, {Epoch: 5, Start: 9}}, 9); e != 3 {
		t.Errorf("last epoch %d, want that of the last record", e)
	}
}
