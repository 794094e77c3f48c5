package etcdkv

import (
	"log/slog"
	"testing"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

func openStore(t *testing.T, m *Member) *metadata.Store {
	t.Helper()
	s, err := metadata.Open(t.Context(), metadata.Options{KV: m.KV(), BrokerID: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "h", Port: 1}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStore is the life of a large topic over real etcd, with a restart in the middle: its limits are those that memkv
// only imitates.
func TestStore(t *testing.T) {
	dir := t.TempDir()
	m := start(t, dir)
	s := openStore(t, m)
	cluster := s.Image().ClusterID()
	topic, err := s.CreateTopic(t.Context(), metadata.TopicSpec{Name: "t", Partitions: 1000, ReplicationFactor: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := s.NextProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	stop(t, m)

	m = start(t, dir)
	defer stop(t, m)
	s = openStore(t, m)
	defer s.Close()
	if got := s.Image().ClusterID(); got != cluster {
		t.Errorf("cluster id %s became %s", cluster, got)
	}
	again, ok := s.Image().TopicByID(topic.ID)
	if !ok || len(again.Partitions) != 1000 || again.Partitions[999].LeaderEpoch != topic.Partitions[999].LeaderEpoch+1 {
		t.Fatalf("after the restart: %v", ok)
	}
	if next, err := s.NextProducerID(t.Context()); err != nil || next <= pid {
		t.Errorf("producer id %d after %d (%v)", next, pid, err)
	}
	roots := make([]*metadata.Root, len(again.Partitions))
	for i, p := range again.Partitions {
		roots[i] = &metadata.Root{Log: p.Log, Epoch: p.LeaderEpoch, Start: base.Offset(i)}
	}
	for i, err := range s.SwapRoots(t.Context(), roots) {
		if err != nil {
			t.Fatalf("root %d: %v", i, err)
		}
	}
	if err := s.DeleteTopic(t.Context(), topic.ID); err != nil {
		t.Fatal(err)
	}
	deleted, err := s.DeletedLogs(t.Context())
	if err != nil || len(deleted) != 1000 {
		t.Errorf("%d tombstones (%v)", len(deleted), err)
	}
}
