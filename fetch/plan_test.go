package fetch

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
)

func TestPlanPartition(t *testing.T) {
	v := ingest.View{LogStart: 10, HotStart: 60, Served: 50, TieredEnd: 70, HighWatermark: 90, LastStable: 80, LogEnd: 100, Epoch: 3}
	f := func(what string, r PartitionRequest, committed bool, from source, upTo base.Offset, code *kerr.Error) {
		t.Helper()
		p := planPartition(v, &r, committed, func(e base.LeaderEpoch) (base.LeaderEpoch, base.Offset) {
			switch {
			case e > 3:
				return -1, -1
			case e == 3:
				return 3, 100
			default:
				return 1, 40
			}
		})
		if p.from != from || p.upTo != upTo || !errors.Is(p.err, kerrOrNil(code)) {
			t.Errorf("%s: %+v", what, p)
		}
	}
	at := func(off base.Offset) PartitionRequest {
		return PartitionRequest{Offset: off, CurrentEpoch: -1, LastFetchedEpoch: -1}
	}
	f("below the log start", at(9), false, sourceNone, 0, kerr.OffsetOutOfRange)
	f("past the log end", at(101), false, sourceNone, 0, kerr.OffsetOutOfRange)
	f("at the log end", at(100), false, sourceNone, 90, nil)
	f("between high watermark and log end", at(95), false, sourceNone, 90, nil)
	f("at the log start", at(10), false, sourceCold, 70, nil)
	f("trimmed, but in the tail", at(50), false, sourceHot, 90, nil)
	f("read committed", at(60), true, sourceHot, 80, nil)
	f("read committed at the last stable offset", at(80), true, sourceNone, 80, nil)
	diverging := at(60)
	diverging.LastFetchedEpoch = 2
	p := planPartition(v, &diverging, false, func(base.LeaderEpoch) (base.LeaderEpoch, base.Offset) { return 1, 40 })
	if p.diverging == nil || *p.diverging != (base.EpochStart{Epoch: 1, Start: 40}) || p.err != nil {
		t.Errorf("diverging: %+v", p)
	}
	unknown := at(60)
	unknown.LastFetchedEpoch = 9
	f("unknown last epoch", unknown, false, sourceNone, 0, kerr.OffsetOutOfRange)
	same := at(60)
	same.LastFetchedEpoch = 3
	f("known last epoch", same, false, sourceHot, 90, nil)
}

func kerrOrNil(e *kerr.Error) error {
	if e == nil {
		return nil
	}
	return e
}
