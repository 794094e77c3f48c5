package fetch_test

import (
	"testing"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// TestTieredOffsetsOfAnUntieredTopic asks for what only tiered topics have: Kafka 4.3 answers -1.
func TestTieredOffsetsOfAnUntieredTopic(t *testing.T) {
	r := newRig(t, 4<<10, fetch.Options{})
	tp := r.topic("t", map[string]string{"remote.storage.enable": "false"})
	r.put(tp, &model{}, 5, record.CodecNone)
	for special, want := range map[int64]base.Offset{
		fetch.TimestampLatest: 5, fetch.TimestampEarliest: 0, fetch.TimestampEarliestLocal: 0,
		fetch.TimestampLatestTiered: base.NoOffset, fetch.TimestampEarliestPendingUpload: base.NoOffset,
	} {
		if got, err := r.svc.ListOffset(t.Context(), tp, -1, special, false); err != nil || got.Offset != want {
			t.Errorf("timestamp %d: %+v, %v, want offset %d", special, got, err, want)
		}
	}
}
