package metadata_test

import (
	"context"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// open returns a store of broker 1, registered.
func open(t *testing.T, kv metadata.KV, static map[string]string) *metadata.Store {
	t.Helper()
	s, err := metadata.Open(t.Context(), metadata.Options{KV: kv, BrokerID: 1, Static: static})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "127.0.0.1", Port: 9092}); err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *metadata.Store, name string, partitions int32) *metadata.Topic {
	t.Helper()
	topic, err := s.CreateTopic(t.Context(), metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: -1}, false)
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return topic
}

func TestTopicLife(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	s := open(t, kv, nil)
	if got := s.Image().ClusterID(); len(got) != 22 {
		t.Errorf("cluster id %q: want 22 characters", got)
	}
	if got := s.Image().Controller(); got != 1 {
		t.Errorf("controller %d, want 1", got)
	}
	small := create(t, s, "small", 3)
	large := create(t, s, "large", 250)
	logs := map[base.LogID]bool{}
	for _, topic := range []*metadata.Topic{small, large} {
		seen, ok := s.Image().Topic(topic.Name)
		if !ok || seen.ID != topic.ID {
			t.Fatalf("topic %s is not in the image", topic.Name)
		}
		for i, p := range seen.Partitions {
			if p.Leader != 1 || p.TP.Partition != int32(i) || p.TP.Topic != topic.Name || p.Rev == 0 || logs[p.Log] || p.Log == 0 {
				t.Fatalf("partition %v: %+v", p.TP, p)
			}
			logs[p.Log] = true
			if q, owner, ok := s.Image().Log(p.Log); !ok || q.TP != p.TP || owner.ID != topic.ID {
				t.Fatalf("log %s: %v %v", p.Log, q, ok)
			}
		}
	}
	if err := s.CreatePartitions(t.Context(), "small", 300, nil, false); err != nil {
		t.Fatal(err)
	}
	grown, _ := s.Image().Topic("small")
	if len(grown.Partitions) != 300 {
		t.Errorf("%d partitions, want 300", len(grown.Partitions))
	}
	for _, id := range []base.TopicID{small.ID, large.ID} {
		if err := s.DeleteTopic(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Image().TopicByID(id); ok {
			t.Error("deleted topic is still visible")
		}
	}
	deleted, err := s.DeletedLogs(t.Context())
	if err != nil || len(deleted) != 550 {
		t.Fatalf("%d tombstones, want 550 (%v)", len(deleted), err)
	}
	if err := s.ForgetLog(t.Context(), deleted[0].Log); err != nil {
		t.Fatal(err)
	}
	if deleted, _ = s.DeletedLogs(t.Context()); len(deleted) != 549 {
		t.Errorf("%d tombstones, want 549", len(deleted))
	}
}

func TestTopicErrors(t *testing.T) {
	s := open(t, memkv.New(memkv.Options{}), nil)
	create(t, s, "a.b", 2)
	f := func(spec metadata.TopicSpec, code error, message string) {
		t.Helper()
		_, err := s.CreateTopic(t.Context(), spec, true)
		if !errors.Is(err, code) || err.Error() != message {
			t.Errorf("create %+v: %v", spec, err)
		}
	}
	f(metadata.TopicSpec{Name: "a.b", Partitions: 1, ReplicationFactor: 1}, kerr.TopicAlreadyExists, "Topic 'a.b' already exists.")
	f(metadata.TopicSpec{Name: "a_b", Partitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b")
	f(metadata.TopicSpec{Name: "", Partitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, "Topic name is invalid: the empty string is not allowed")
	f(metadata.TopicSpec{Name: "x", Partitions: 0, ReplicationFactor: 1}, kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	f(metadata.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 0}, kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	f(metadata.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 3}, kerr.InvalidReplicationFactor,
		"Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.")
	if err := s.CreatePartitions(context.Background(), "a.b", 1, nil, false); !errors.Is(err, kerr.InvalidPartitions) {
		t.Errorf("shrink: %v", err)
	}
	if err := s.DeleteTopic(t.Context(), base.NewTopicID()); !errors.Is(err, kerr.UnknownTopicID) {
		t.Errorf("delete unknown: %v", err)
	}
}
