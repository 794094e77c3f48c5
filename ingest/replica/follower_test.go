package replica

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

func batch(t *testing.T, offset base.Offset, epoch base.LeaderEpoch, count int) record.Batch {
	t.Helper()
	rows := make([]record.Record, count)
	for i := range rows {
		rows[i] = record.Record{Offset: offset + base.Offset(i), Value: []byte("value")}
	}
	b, err := record.Build(record.BuildHeader{LeaderEpoch: epoch, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, rows)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newTestFollower follows in epoch 7 with a log of [5, 20): epoch 3 from 5, epoch 6 from 15; committed up to 12.
func newTestFollower() *Follower {
	return NewFollower(7, LogState{
		LogStart: 2, LocalStart: 5, End: 20, HighWatermark: 12, Epochs: []base.EpochStart{{Epoch: 3, Start: 5}, {Epoch: 6, Start: 15}},
	})
}

func TestFollowerRefusesBatches(t *testing.T) {
	f := func(what string, code error, records []byte) {
		t.Helper()
		fo := newTestFollower()
		before := fo.Position()
		s := fo.Step(Response{To: before, Records: records, HighWatermark: 30})
		if !errors.Is(s.Err, code) || len(s.Batches) > 0 || s.Moved || fo.Position() != before || fo.Log().HighWatermark != 12 {
			t.Errorf("%s: %+v", what, s)
		}
	}
	good := batch(t, 20, 7, 2)
	damaged := append(record.Batch(nil), good...)
	damaged[len(damaged)-1]++
	f("damaged", kerr.CorruptMessage, damaged)
	f("damaged second batch", kerr.CorruptMessage, append(append([]byte(nil), batch(t, 20, 7, 1)...), func() []byte { b := batch(t, 21, 7, 1); b[60]++; return b }()...))
	f("a gap", kerr.InvalidRecord, batch(t, 21, 7, 1))
	f("an overlap", kerr.InvalidRecord, batch(t, 19, 7, 2))
	f("an epoch that falls", kerr.InvalidRecord, batch(t, 20, 5, 1))
	f("an epoch that falls within", kerr.InvalidRecord, append(append([]byte(nil), batch(t, 20, 7, 1)...), batch(t, 21, 6, 1)...))
	f("an epoch above the leader's", kerr.InvalidRecord, batch(t, 20, 8, 1))
	f("no epoch", kerr.InvalidRecord, batch(t, 20, -1, 1))
	f("only the beginning of a batch", kerr.CorruptMessage, good[:len(good)-1])
}

func TestFollowerAppends(t *testing.T) {
	fo := newTestFollower()
	records := append(append([]byte(nil), batch(t, 20, 6, 2)...), batch(t, 22, 7, 3)...)
	records = append(records, batch(t, 25, 7, 1)[:30]...) // cut off by the byte limit
	s := fo.Step(Response{To: fo.Position(), Records: records, HighWatermark: 99, LogStart: 4})
	if s.Err != nil || len(s.Batches) != 2 || s.HighWatermark != 25 || s.LogStart != 4 || !s.Moved {
		t.Errorf("%+v", s)
	}
	if p := fo.Position(); p != (Position{7, 25, 7}) {
		t.Errorf("position %+v", p)
	}
	// A new leader's high watermark may lag behind.
	if s := fo.Step(Response{To: fo.Position(), HighWatermark: 3, LogStart: 0}); s.HighWatermark != 25 || s.LogStart != 4 || s.Moved {
		t.Errorf("%+v", s)
	}
}

func TestFollowerDiverges(t *testing.T) {
	fo := newTestFollower()
	s := fo.Step(Response{To: fo.Position(), Diverging: &base.EpochStart{Epoch: 3, Start: 14}, HighWatermark: 99})
	if !s.Truncate || s.TruncateTo != 14 || s.HighWatermark != 12 || s.Moved || fo.Position() != (Position{7, 14, 3}) {
		t.Errorf("%+v, position %+v: the high watermark of logs that differ says nothing", s, fo.Position())
	}
	// Only an unclean election takes what was committed.
	if s := fo.Step(Response{To: fo.Position(), Diverging: &base.EpochStart{Epoch: 3, Start: 9}}); s.TruncateTo != 9 || s.HighWatermark != 9 || !s.Moved {
		t.Errorf("%+v", s)
	}
	if s := fo.Step(Response{To: fo.Position(), Diverging: &base.EpochStart{Epoch: 3, Start: 30}}); s.Err == nil {
		t.Errorf("a divergence that cuts nothing off: %+v", s)
	}
}

// Each of these responses was right when it was sent.
func TestFollowerDropsStaleResponses(t *testing.T) {
	f := func(what string, to Position) {
		t.Helper()
		fo := newTestFollower() // its position is {7, 20, 6}
		s := fo.Step(Response{To: to, Diverging: &base.EpochStart{Epoch: 3, Start: 14}})
		if !s.Stale || s.Truncate || fo.Log().End != 20 {
			t.Errorf("%s: %+v", what, s)
		}
	}
	f("another leader's", Position{6, 20, 6})
	f("another offset", Position{7, 19, 6})
	// The log has been cut and has grown back to the same end since, and was acknowledged.
	f("the same end of another log", Position{7, 20, 5})
	fo := newTestFollower()
	to := fo.Position()
	if fo.SetEpoch(7) || fo.SetEpoch(6) || !fo.SetEpoch(8) {
		t.Error("epochs only grow")
	}
	if s := fo.Step(Response{To: to, Records: batch(t, 20, 7, 1)}); !s.Stale || fo.Log().End != 20 {
		t.Errorf("of the leader before: %+v", s)
	}
}

func TestFollowerStartsOver(t *testing.T) {
	for _, code := range []error{kerr.OffsetMovedToTieredStorage, kerr.OffsetOutOfRange} {
		fo := newTestFollower()
		if s := fo.Step(Response{To: fo.Position(), Err: code}); !s.StartOver || s.Err != nil {
			t.Errorf("%v: %+v", code, s)
		}
		if err := fo.Restart(LogState{LocalStart: 19, End: 19}); err == nil || fo.Log().End != 20 {
			t.Error("takes back what was acknowledged")
		}
		same := fo.Log()
		if err := fo.Restart(same); err == nil {
			t.Error("starts over where it is")
		}
		if err := fo.Restart(LogState{LocalStart: 40, End: 40, HighWatermark: 40, Epochs: []base.EpochStart{{Epoch: 6, Start: 15}}}); err != nil || fo.Position() != (Position{7, 40, 6}) {
			t.Errorf("%v %+v", err, fo.Position())
		}
	}
	fo := newTestFollower()
	if s := fo.Step(Response{To: fo.Position(), Err: kerr.NotLeaderForPartition}); !errors.Is(s.Err, kerr.NotLeaderForPartition) || s.StartOver {
		t.Errorf("%+v", s)
	}
}

// A log that was trimmed up to a tiered end may end in records of its own that nobody committed: what is tiered there are the
// others'. What the leader then answers lies below everything that is kept, and the log starts over behind it.
func TestFollowerDivergesBelowWhatItKeeps(t *testing.T) {
	fo := newTestFollower()
	s := fo.Step(Response{To: fo.Position(), Diverging: &base.EpochStart{Epoch: 2, Start: 4}})
	if !s.StartOver || s.Err != nil || s.Truncate {
		t.Fatalf("step %+v", s)
	}
	if err := fo.Restart(LogState{LogStart: 2, LocalStart: 18, End: 18, HighWatermark: 18, Epochs: []base.EpochStart{{Epoch: 2, Start: 2}}}); err != nil {
		t.Errorf("start over within what diverges: %v", err)
	}
}
