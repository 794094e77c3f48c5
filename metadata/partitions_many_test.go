package metadata_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// meddled is a KV on which somebody else writes before the next transaction, and which counts transactions.
type meddled struct {
	metadata.KV
	mu     sync.Mutex
	before func()
	txns   int
}

func (m *meddled) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	m.mu.Lock()
	before := m.before
	m.before = nil
	m.txns++
	m.mu.Unlock()
	if before != nil {
		before()
	}
	return m.KV.Txn(ctx, cmps, ops)
}

// count answers how many transactions do makes, before the first of which before happens.
func (m *meddled) count(before, do func()) int {
	m.mu.Lock()
	m.before, m.txns = before, 0
	m.mu.Unlock()
	do()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.txns
}

func TestManyPartitions(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	other := stores[1]
	const partitions = 150 // more than fit into one transaction
	topic := threefold(t, other, "t", partitions)
	m := &meddled{KV: kv}
	s, err := metadata.Open(t.Context(), metadata.Options{KV: m, BrokerID: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	state := func(n int32) *metadata.Partition {
		p, ok := s.Image().Partition(base.TopicPartition{Topic: "t", Partition: n})
		if !ok {
			t.Fatalf("no partition %d", n)
		}
		return p
	}
	var moves []metadata.Reassignment
	var tps []base.TopicPartition
	for n := range int32(partitions) {
		tps = append(tps, base.TopicPartition{Topic: "t", Partition: n})
		moves = append(moves, metadata.Reassignment{TP: tps[n], Target: []base.BrokerID{3, 1, 2}, KeepFactor: true})
	}
	want := func(what string, errs []error, want map[int]error, otherwise error) {
		t.Helper()
		for n, err := range errs {
			expected, ok := want[n]
			if !ok {
				expected = otherwise
			}
			if !errors.Is(err, expected) {
				t.Fatalf("%s, partition %d: %v, want %v", what, n, err, expected)
			}
		}
	}

	// Undisturbed: two transactions, and what is refused keeps nothing else.
	moves[7].Target = []base.BrokerID{3, 1}
	moves[8].Target = []base.BrokerID{3, 9, 1}
	moves[9].Target = nil
	var errs []error
	if n := m.count(nil, func() { errs = s.ReassignMany(t.Context(), moves) }); n != 2 {
		t.Errorf("%d transactions", n)
	}
	want("reassign", errs, map[int]error{7: kerr.InvalidReplicationFactor, 8: kerr.InvalidReplicaAssignment, 9: kerr.NoReassignmentInProgress}, nil)
	for n := range int32(partitions) {
		if moved := slices.Equal(state(n).Replicas, []base.BrokerID{3, 1, 2}); !moved && n != 7 && n != 8 && n != 9 {
			if before := topic.Partitions[n].Replicas; !slices.Equal(before, []base.BrokerID{3, 1, 2}) {
				t.Fatalf("partition %d: %v", n, state(n).Replicas)
			}
		}
	}
	if n := m.count(nil, func() { errs = s.ReassignMany(t.Context(), nil) }); n != 0 || len(errs) != 0 {
		t.Errorf("nothing: %d transactions, %v", n, errs)
	}

	// Somebody changes a partition of the first chunk: all of that is done, one by one, and nothing of the other is lost.
	for n := range moves {
		moves[n].Target = []base.BrokerID{2, 3, 1}
	}
	n := m.count(func() {
		if err := other.Reassign(t.Context(), tps[5], []base.BrokerID{1, 3}); err != nil {
			t.Error(err)
		}
	}, func() { errs = s.ReassignMany(t.Context(), moves) })
	if n < 100 {
		t.Errorf("%d transactions", n)
	}
	want("meddled", errs, map[int]error{5: kerr.InvalidReplicationFactor}, nil)
	if got := state(5).Replicas; !slices.Equal(got, []base.BrokerID{1, 3}) {
		t.Errorf("partition 5: %v", got)
	}
	if got := state(140).Replicas; !slices.Equal(got, []base.BrokerID{2, 3, 1}) {
		t.Errorf("partition 140: %v", got)
	}

	// The broker that is to be elected is fenced: nobody elects it.
	m.count(func() {
		if err := other.FenceBroker(t.Context(), reign, 2, epochs[2]); err != nil {
			t.Error(err)
		}
	}, func() { errs = s.ElectLeaders(t.Context(), tps, false) })
	for n, err := range errs {
		was := topic.Partitions[n].Leader
		switch {
		case n == 5: // of which broker 1 is to lead
			if err != nil || state(5).Leader != 1 {
				t.Errorf("partition 5: leader %d, %v", state(5).Leader, err)
			}
		case err == nil, was == 2 && !errors.Is(err, kerr.ElectionNotNeeded) && !errors.Is(err, kerr.PreferredLeaderNotAvailable):
			t.Fatalf("partition %d, led by %d: %v", n, was, err)
		case state(int32(n)).Leader != was:
			t.Fatalf("partition %d: leader %d", n, state(int32(n)).Leader)
		}
	}
	tps = append(tps, base.TopicPartition{Topic: "nope"}, base.TopicPartition{Topic: "t", Partition: partitions})
	want("unknown", s.ElectLeaders(t.Context(), tps, false)[partitions:], nil, kerr.UnknownTopicOrPartition)
}
