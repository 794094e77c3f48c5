package metadata_test

import (
	"errors"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// The rates of replication quotas exist only while they are set: for a broker, or for all, as kafka-configs and
// kafka-reassign-partitions do (KIP-73).
func TestReplicationRates(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	own, cluster := metadata.Resource{Type: metadata.ResourceBroker, Name: "1"}, metadata.Resource{Type: metadata.ResourceBroker}
	const leader, follower = "leader.replication.throttled.rate", "follower.replication.throttled.rate"
	f := func(r metadata.Resource, op metadata.ConfigOp, wantLeader, wantFollower int64) {
		t.Helper()
		if err := s.IncrementalAlterConfigs(t.Context(), r, []metadata.ConfigOp{op}, false); err != nil {
			t.Fatal(err)
		}
		if b := s.Image().Broker(); b.LeaderThrottledRate != wantLeader || b.FollowerThrottledRate != wantFollower {
			t.Errorf("rates %d, %d, want %d, %d", b.LeaderThrottledRate, b.FollowerThrottledRate, wantLeader, wantFollower)
		}
	}
	v := func(s string) *string { return &s }
	const none = math.MaxInt64
	f(cluster, metadata.ConfigOp{Name: leader, Value: v("3000000")}, 3_000_000, none)
	f(own, metadata.ConfigOp{Name: leader, Value: v("0")}, 0, none)
	f(own, metadata.ConfigOp{Name: follower, Value: v("1000000")}, 0, 1_000_000)
	got := describe(t, s, own)
	if e := got[follower]; show(e.Value) != "1000000" || e.Source != 2 || e.Type != kinds["LONG"] || e.Sensitive || e.ReadOnly || len(e.Synonyms) != 1 {
		t.Errorf("described as %+v %s", e, show(e.Value))
	}
	f(own, metadata.ConfigOp{Name: leader, Op: 1}, 3_000_000, 1_000_000)
	f(own, metadata.ConfigOp{Name: follower, Op: 1}, 3_000_000, none)
	f(cluster, metadata.ConfigOp{Name: leader, Op: 1}, none, none)
	if _, shown := describe(t, s, own)[follower]; shown {
		t.Error("a rate is described that is not set")
	}
	for _, bad := range []string{"-1", "x", "9223372036854775808"} {
		if err := s.IncrementalAlterConfigs(t.Context(), own, []metadata.ConfigOp{{Name: leader, Value: &bad}}, false); !errors.Is(err, kerr.InvalidRequest) {
			t.Errorf("rate %s: %v", bad, err)
		}
	}
}

func TestThrottledReplicas(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	create(t, s, "t", 1)
	r := metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}
	f := func(list string, partition int32, broker base.BrokerID, want bool) {
		t.Helper()
		for _, name := range []string{"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"} {
			if err := s.IncrementalAlterConfigs(t.Context(), r, []metadata.ConfigOp{{Name: name, Value: &list}}, false); err != nil {
				t.Fatal(err)
			}
		}
		topic, _ := s.Image().Topic("t")
		l, fo := topic.Config.LeaderThrottled, topic.Config.FollowerThrottled
		if l.Has(partition, broker) != want || fo.Has(partition, broker) != want {
			t.Errorf("%q: partition %d of broker %d: not %v", list, partition, broker, want)
		}
	}
	f("", 0, 1, false)
	f("*", 7, 3, true)
	f("0:1,12:3", 0, 1, true)
	f("0:1,12:3", 12, 3, true)
	f("0:1,12:3", 0, 3, false)
	f("0:1,12:3", 1, 1, false)
	f("99999999999:1,2:2", 2, 2, true) // a partition that cannot be
}
