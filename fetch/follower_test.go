package fetch_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/record"
)

// The leader leads in another epoch than the one that a follower's position was compared in: nothing is told about that position
// any more, neither batches nor a high watermark (I2, I3).
func TestPositionOfAnotherEpoch(t *testing.T) {
	r := newRig(t, 1<<20, fetch.Options{})
	epoch, err := r.meta.RegisterBroker(t.Context(), metadata.Broker{ID: 2, Host: "h", Port: 2})
	r.check(err)
	topic, err := r.meta.CreateTopic(t.Context(), metadata.TopicSpec{
		Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{0: {1, 2}},
	}, false)
	r.check(err)
	tp := base.TopicPartition{Topic: "t"}
	reign, err := r.meta.ClaimController(t.Context())
	r.check(err)
	lead := func(in base.LeaderEpoch) {
		t.Helper()
		p, _ := r.meta.Image().Partition(tp)
		_, err := r.meta.ApplyPartitionChanges(t.Context(), reign, []metadata.PartitionChange{{Partition: *p, Next: controller.State{
			Replicas: p.Replicas, ISR: []base.BrokerID{1}, Leader: 1, LeaderEpoch: in, PartitionEpoch: p.PartitionEpoch + 1,
		}}})
		r.check(err)
		r.until("it leads", func() bool { s, err := r.in.Status(tp); return err == nil && s.LeaderEpoch == in })
	}
	m := &model{}
	key := fetch.FollowerKey{Topic: topic.ID}
	session := int32(0)
	ask := func(n int32, parts ...fetch.FollowerPartition) []fetch.FollowerResponse {
		t.Helper()
		id, out, err := r.svc.FetchFollower(t.Context(), &fetch.FollowerRequest{
			Follower: 2, BrokerEpoch: epoch, SessionID: session, SessionEpoch: n, NewSession: 7, MaxBytes: 1 << 20, Partitions: parts,
		})
		r.check(err)
		session = id
		return out
	}
	lead(5)
	r.put(tp, m, 3, record.CodecNone)
	at := fetch.FollowerPartition{FollowerKey: key, CurrentEpoch: 5, LastEpoch: -1, MaxBytes: 1 << 20}
	if out := ask(0, at); len(out) != 1 || out[0].Err != nil || len(out[0].Batches) != 1 {
		t.Fatalf("first answer %+v", out)
	}
	at.Offset, at.LastEpoch = 3, 5
	if out := ask(1, at); len(out) > 0 && out[0].Err != nil {
		t.Fatalf("second answer %+v", out)
	}
	lead(7)
	r.put(tp, m, 3, record.CodecNone)
	if out := ask(2); len(out) != 1 || !errors.Is(out[0].Err, kerr.FencedLeaderEpoch) || len(out[0].Batches) > 0 || out[0].HighWatermark >= 0 {
		t.Errorf("answer to a position of epoch 5, led in 7: %+v", out)
	}
}
