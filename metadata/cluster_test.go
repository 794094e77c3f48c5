package metadata_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/memkv"
)

// brokerStore opens the store of a broker and registers it.
func brokerStore(t *testing.T, kv metadata.KV, id base.BrokerID, disk string) (*metadata.Store, int64) {
	t.Helper()
	s, err := metadata.Open(t.Context(), metadata.Options{
		KV: kv, BrokerID: id, Logger: slog.New(slog.DiscardHandler), Static: map[string]string{"min.insync.replicas": "2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	epoch, err := s.RegisterBroker(t.Context(), metadata.Broker{ID: id, Host: "h", Port: 1, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return s, epoch
}

// trio is three brokers that serve; broker 1 is the controller.
func trio(t *testing.T, kv metadata.KV) (stores map[base.BrokerID]*metadata.Store, epochs map[base.BrokerID]int64, reign int64) {
	t.Helper()
	stores, epochs = map[base.BrokerID]*metadata.Store{}, map[base.BrokerID]int64{}
	for id := base.BrokerID(1); id <= 3; id++ {
		stores[id], epochs[id] = brokerStore(t, kv, id, "a")
	}
	reign = claim(t, stores[1])
	for id := base.BrokerID(2); id <= 3; id++ {
		if b, ok := stores[1].Image().BrokerByID(id); !ok || !b.Fenced {
			t.Fatalf("broker %d is not fenced: %+v", id, b)
		}
		if err := stores[1].UnfenceBroker(t.Context(), reign, id, epochs[id]); err != nil {
			t.Fatal(err)
		}
	}
	return stores, epochs, reign
}

func claim(t *testing.T, s *metadata.Store) int64 {
	t.Helper()
	epoch, err := s.ClaimController(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Image().ControllerEpoch(); got != epoch {
		t.Errorf("controller epoch %d, image %d", epoch, got)
	}
	return epoch
}

func threefold(t *testing.T, s *metadata.Store, name string, partitions int32) *metadata.Topic {
	t.Helper()
	topic, err := s.CreateTopic(t.Context(), metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: 3}, false)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// catchUp returns once a store's image shows what another store has seen.
func catchUp(t *testing.T, s, other *metadata.Store) {
	t.Helper()
	shown := make(chan struct{}, 1)
	s.Subscribe(func(_, _ *metadata.Image) {
		select {
		case shown <- struct{}{}:
		default:
		}
	})
	for want := other.Image().Revision(); s.Image().Revision() < want; {
		<-shown
	}
}

func TestRegistration(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	if len(stores[1].Image().Brokers()) != 3 {
		t.Fatalf("brokers: %+v", stores[1].Image().Brokers())
	}
	if err := stores[1].SetDraining(t.Context(), 2, true); err != nil {
		t.Fatal(err)
	}
	again, epoch := brokerStore(t, kv, 2, "b")
	if epoch <= epochs[2] {
		t.Errorf("epoch %d after %d", epoch, epochs[2])
	}
	catchUp(t, stores[1], again)
	b, _ := stores[1].Image().BrokerByID(2)
	if !b.Fenced || !b.Wiped || !b.Draining || b.Epoch != epoch || b.Disk != "b" || len(stores[1].Image().Brokers()) != 2 {
		t.Errorf("after a registration with another disk: %+v", b)
	}
	if err := stores[1].UnfenceBroker(t.Context(), reign, 2, epochs[2]); !errors.Is(err, kerr.StaleBrokerEpoch) {
		t.Errorf("unfence an older registration: %v", err)
	}
	if err := stores[1].UnfenceBroker(t.Context(), reign, 2, epoch); err != nil {
		t.Fatal(err)
	}
	if b, _ = stores[1].Image().BrokerByID(2); b.Fenced || b.Wiped || b.Epoch != epoch {
		t.Errorf("unfenced: %+v", b)
	}
	if err := stores[1].FenceBroker(t.Context(), reign, 2, epoch); err != nil {
		t.Fatal(err)
	}
	if b, _ = stores[1].Image().BrokerByID(2); !b.Fenced || b.Wiped || b.Epoch != epoch {
		t.Errorf("fenced: %+v", b)
	}
	claim(t, stores[3])
	if err := stores[1].UnfenceBroker(t.Context(), reign, 2, epoch); !errors.Is(err, kerr.NotController) {
		t.Errorf("unfence by a former controller: %v", err)
	}
	if err := stores[1].SetDraining(t.Context(), 9, true); !errors.Is(err, kerr.BrokerIDNotRegistered) {
		t.Errorf("drain nobody: %v", err)
	}
}

// A new replica goes to a broker whose disk is full only where there are not enough others; where all are full there is no choice.
func TestPlacementBesideAFullDisk(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	s := stores[1]
	full := func(id base.BrokerID) {
		t.Helper()
		if err := s.SetFull(t.Context(), reign, id, epochs[id], true); err != nil {
			t.Fatal(err)
		}
	}
	full(2)
	for _, p := range create(t, s, "single", 6).Partitions {
		if slices.Contains(p.Replicas, 2) {
			t.Errorf("%s is on the full broker: %v", p.TP, p.Replicas)
		}
	}
	for _, p := range threefold(t, s, "all", 3).Partitions {
		if len(p.Replicas) != 3 || p.Replicas[0] == 2 {
			t.Errorf("%s has the replicas %v", p.TP, p.Replicas)
		}
	}
	full(1)
	full(3)
	create(t, s, "nowhere-else", 3)
}

// counting counts the operations that a KV is asked for.
type counting struct {
	*memkv.KV
	txns atomic.Int64
}

func (c *counting) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	c.txns.Add(1)
	return c.KV.Txn(ctx, cmps, ops)
}

// TestAloneRestart: one transaction for the registration and one for each 127 partitions; each has the next epoch.
func TestAloneRestart(t *testing.T) {
	kv := &counting{KV: memkv.New(memkv.Options{})}
	defer kv.Close()
	s, first := brokerStore(t, kv, 1, "")
	create(t, s, "t", 200)
	before := kv.txns.Load()
	s, second := brokerStore(t, kv, 1, "")
	if n := kv.txns.Load() - before; n != 3 {
		t.Errorf("%d transactions, want 3", n)
	}
	if second <= first || s.Image().Controller() != 1 || len(s.Image().Brokers()) != 1 {
		t.Errorf("epoch %d after %d, controller %d", second, first, s.Image().Controller())
	}
	for p := range s.Image().AllPartitions() {
		if p.Leader != 1 || p.LeaderEpoch != 1 || p.PartitionEpoch != 1 {
			t.Fatalf("%+v", *p)
		}
	}
}

// TestAloneWithoutDisk: what only the lost disk held is led by nobody, but the broker serves.
func TestAloneWithoutDisk(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s, _ := brokerStore(t, kv, 1, "a")
	create(t, s, "t", 2)
	s, _ = brokerStore(t, kv, 1, "b")
	if len(s.Image().Brokers()) != 1 {
		t.Fatalf("%+v", s.Image().AllBrokers())
	}
	for p := range s.Image().AllPartitions() {
		if p.Leader != -1 || len(p.ISR) != 0 {
			t.Errorf("%+v", *p)
		}
	}
	tp := base.TopicPartition{Topic: "t"}
	if err := s.ElectLeader(t.Context(), tp, true); err != nil {
		t.Fatal(err)
	}
	if p, _ := s.Image().Partition(tp); p.Leader != 1 || !slices.Equal(p.ISR, []base.BrokerID{1}) {
		t.Errorf("unclean: %+v", *p)
	}
}

func TestApplyPartitionChanges(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	threefold(t, stores[1], "t", 300)
	image := stores[1].Image()
	status := image.Cluster(nil)
	status[2] = controller.Fenced
	var changes []metadata.PartitionChange
	for n := range 300 {
		p, _ := image.Partition(base.TopicPartition{Topic: "t", Partition: int32(n)})
		if next, changed := controller.Next(p.State(), status, image.Rules(p)); changed {
			changes = append(changes, metadata.PartitionChange{Partition: *p, Next: next})
		}
	}
	if len(changes) != 300 {
		t.Fatalf("%d changes", len(changes))
	}
	// A leader is faster with one of them.
	p := changes[77].Partition
	catchUp(t, stores[p.Leader], stores[1])
	proposal := metadata.ISRProposal{TopicID: p.TopicID, Partition: p.TP.Partition, ISR: []metadata.ISRMember{{ID: p.Leader, Epoch: epochs[p.Leader]}}}
	shrunk, err := stores[p.Leader].ProposeISR(t.Context(), proposal)
	if err != nil || len(shrunk.ISR) != 1 || len(shrunk.ELR) != 2 || shrunk.LeaderEpoch != 0 || shrunk.PartitionEpoch != 1 {
		t.Fatalf("shrunk: %+v, %v", shrunk, err)
	}
	applied, err := stores[1].ApplyPartitionChanges(t.Context(), reign, changes)
	if err != nil {
		t.Fatal(err)
	}
	for n, ok := range applied {
		now, _ := stores[1].Image().Partition(changes[n].Partition.TP)
		if ok != (n != 77) || ok && now.Leader == 2 {
			t.Errorf("change %d: applied %v, %+v", n, ok, *now)
		}
	}
	claim(t, stores[2])
	if _, err := stores[1].ApplyPartitionChanges(t.Context(), reign, changes[:1]); !errors.Is(err, kerr.NotController) {
		t.Errorf("a former controller: %v", err)
	}
}

func TestProposeISR(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	topic := threefold(t, stores[1], "t", 1)
	leader := stores[1]
	propose := func(partitionEpoch int32, members ...metadata.ISRMember) error {
		_, err := leader.ProposeISR(t.Context(), metadata.ISRProposal{TopicID: topic.ID, PartitionEpoch: partitionEpoch, ISR: members})
		return err
	}
	f := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	one := metadata.ISRMember{ID: 1, Epoch: epochs[1]}
	two := metadata.ISRMember{ID: 2, Epoch: epochs[2]}
	f(propose(0, one, metadata.ISRMember{ID: 3, Epoch: epochs[3]}), nil)
	f(propose(0, one), kerr.InvalidUpdateVersion)
	f(propose(1, two), kerr.InvalidRequest)
	f(propose(1, one, one), kerr.InvalidRequest)
	f(propose(1, one, metadata.ISRMember{ID: 2, Epoch: epochs[2] + 1}), kerr.IneligibleReplica)
	if err := stores[1].FenceBroker(t.Context(), reign, 2, epochs[2]); err != nil {
		t.Fatal(err)
	}
	f(propose(1, one, two), kerr.IneligibleReplica)
	catchUp(t, stores[2], stores[1])
	if _, err := stores[2].ProposeISR(t.Context(), metadata.ISRProposal{TopicID: topic.ID, PartitionEpoch: 1, ISR: []metadata.ISRMember{two}}); !errors.Is(err, kerr.FencedLeaderEpoch) {
		t.Errorf("not the leader: %v", err)
	}
	// What was not answered is settled by a write of the ISR as it is: it must move the key (replica.Leader.Unknown).
	f(propose(1, one, metadata.ISRMember{ID: 3, Epoch: epochs[3]}), nil)
	f(propose(1, one), kerr.InvalidUpdateVersion)
}

func TestReassign(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	four, epoch := brokerStore(t, kv, 4, "a")
	catchUp(t, stores[1], four)
	if err := stores[1].UnfenceBroker(t.Context(), reign, 4, epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := stores[1].CreateTopic(t.Context(), metadata.TopicSpec{
		Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{0: {1, 2, 3}},
	}, false); err != nil {
		t.Fatal(err)
	}
	tp := base.TopicPartition{Topic: "t"}
	s := stores[1]
	if err := s.Reassign(t.Context(), tp, []base.BrokerID{4, 2, 3}); err != nil {
		t.Fatal(err)
	}
	moving := s.Image().Reassignments()
	if len(moving) != 1 || !slices.Equal(moving[0].Replicas, []base.BrokerID{4, 2, 3, 1}) || !slices.Equal(moving[0].Adding, []base.BrokerID{4}) || !slices.Equal(moving[0].Removing, []base.BrokerID{1}) {
		t.Fatalf("%+v", moving)
	}
	if err := s.CancelReassignment(t.Context(), tp); err != nil {
		t.Fatal(err)
	}
	if p, _ := s.Image().Partition(tp); !slices.Equal(p.Replicas, []base.BrokerID{2, 3, 1}) || len(s.Image().Reassignments()) != 0 {
		t.Errorf("cancelled: %+v", *p)
	}
	if err := s.CancelReassignment(t.Context(), tp); !errors.Is(err, kerr.NoReassignmentInProgress) {
		t.Errorf("cancel again: %v", err)
	}
	if err := s.Reassign(t.Context(), tp, []base.BrokerID{9}); !errors.Is(err, kerr.InvalidReplicaAssignment) {
		t.Errorf("to nobody: %v", err)
	}
	if err := s.ElectLeader(t.Context(), tp, false); err != nil {
		t.Error(err)
	}
	if err := s.ElectLeader(t.Context(), tp, false); !errors.Is(err, kerr.ElectionNotNeeded) {
		t.Errorf("elected already: %v", err)
	}
	_ = epochs
}

// halting lets a test act between the transactions of another broker's change.
type halting struct {
	*memkv.KV
	at func(n int)
	n  int
}

func (h *halting) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	if h.at != nil {
		h.n++
		h.at(h.n)
	}
	return h.KV.Txn(ctx, cmps, ops)
}

// TestCreationWhileAnotherStarts: a store that opens leaves a living broker's creation alone, and finishes a dead one's.
func TestCreationWhileAnotherStarts(t *testing.T) {
	for _, alive := range []bool{true, false} {
		kv := memkv.New(memkv.Options{})
		defer kv.Close()
		stores, epochs, reign := trio(t, kv)
		slow := &halting{KV: kv}
		a, epoch := brokerStore(t, slow, 2, "a")
		if epoch <= epochs[2] {
			t.Fatal("no new epoch")
		}
		catchUp(t, stores[1], a)
		if err := stores[1].UnfenceBroker(t.Context(), reign, 2, epoch); err != nil {
			t.Fatal(err)
		}
		catchUp(t, a, stores[1])
		slow.at = func(n int) {
			pending, _, err := kv.List(t.Context(), metadata.PendingPrefix)
			if err != nil || len(pending) == 0 || n != 4 {
				return
			}
			if !alive {
				if err := stores[1].FenceBroker(t.Context(), reign, 2, epoch); err != nil {
					t.Error(err)
				}
			}
			brokerStore(t, kv, 4, "a")
			if err := stores[1].FinishAbandoned(t.Context()); err != nil {
				t.Error(err)
			}
			if left, _, _ := kv.List(t.Context(), metadata.PendingPrefix); (len(left) > 0) != alive {
				t.Errorf("alive %v: pending %v", alive, left)
			}
		}
		_, err := a.CreateTopic(t.Context(), metadata.TopicSpec{Name: "t", Partitions: 700, ReplicationFactor: 1}, false)
		slow.at = nil
		if slow.n < 4 {
			t.Fatalf("%d transactions only: %v", slow.n, err)
		}
		switch {
		case alive && err != nil:
			t.Errorf("a living broker's creation: %v", err)
		case !alive && (err == nil || errors.Is(err, kerr.TopicAlreadyExists) || !strings.Contains(err.Error(), "another writer")):
			t.Errorf("a fenced broker's creation: %v", err)
		}
	}
}

// TestUnregisterBroker: one that serves stays, a dead one goes with its replicas left assigned, and comes back as one whose disk is new.
func TestUnregisterBroker(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	stores, epochs, reign := trio(t, kv)
	s := stores[1]
	threefold(t, s, "t", 1)
	if err := s.UnregisterBroker(t.Context(), 9); !errors.Is(err, kerr.BrokerIDNotRegistered) {
		t.Errorf("nobody: %v", err)
	}
	if err := s.UnregisterBroker(t.Context(), 3); !errors.Is(err, kerr.InvalidRequest) {
		t.Errorf("one that serves: %v", err)
	}
	if err := s.FenceBroker(t.Context(), reign, 3, epochs[3]); err != nil {
		t.Fatal(err)
	}
	if err := stores[2].UnregisterBroker(t.Context(), 3); err != nil { // its image may be behind
		t.Fatal(err)
	}
	catchUp(t, s, stores[2])
	if b, ok := s.Image().BrokerByID(3); ok {
		t.Errorf("still registered: %+v", b)
	}
	if p := &s.Image().Topics()[0].Partitions[0]; !slices.Contains(p.Replicas, 3) {
		t.Errorf("replicas %v", p.Replicas)
	}
	if err := s.UnregisterBroker(t.Context(), 3); !errors.Is(err, kerr.BrokerIDNotRegistered) {
		t.Errorf("twice: %v", err)
	}
	again, epoch := brokerStore(t, kv, 3, "a")
	if b, _ := again.Image().BrokerByID(3); epoch <= epochs[3] || !b.Fenced || !b.Wiped {
		t.Errorf("back in epoch %d after %d: %+v", epoch, epochs[3], b)
	}
}

// A damaged replica leaves the ISR, and another one leads, as long as there is one (I14).
func TestReportDamage(t *testing.T) {
	stores, _, _ := trio(t, memkv.New(memkv.Options{}))
	_, err := stores[1].CreateTopic(t.Context(), metadata.TopicSpec{
		Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{0: {1, 2, 3}},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	tp := base.TopicPartition{Topic: "t"}
	f := func(id base.BrokerID, code error, leader base.BrokerID, isr ...base.BrokerID) {
		t.Helper()
		was, _ := stores[id].Image().Partition(tp)
		if err := stores[id].ReportDamage(t.Context(), tp, was.Log); !errors.Is(err, code) {
			t.Fatalf("broker %d: %v", id, err)
		}
		p, _ := stores[id].Image().Partition(tp)
		// The leader goes by the last fetch of its epoch: in the same one it would let the damaged replica in again at once.
		if left := slices.Contains(was.ISR, id) && !slices.Contains(p.ISR, id); left != (p.LeaderEpoch > was.LeaderEpoch) {
			t.Fatalf("after broker %d: leader epoch %d after %d, ISR %v after %v", id, p.LeaderEpoch, was.LeaderEpoch, p.ISR, was.ISR)
		}
		if p.Leader != leader || !slices.Equal(p.ISR, isr) {
			t.Fatalf("after broker %d: leader %d, ISR %v, ELR %v; want %d, %v", id, p.Leader, p.ISR, p.ELR, leader, isr)
		}
	}
	for _, s := range stores {
		catchUp(t, s, stores[1])
	}
	if err := stores[1].ReportDamage(t.Context(), tp, 0); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("of an earlier topic with the name: %v", err)
	}
	f(1, nil, 2, 2, 3)
	f(1, nil, 2, 2, 3)
	catchUp(t, stores[3], stores[1])
	f(3, nil, 2, 2)
	catchUp(t, stores[2], stores[3])
	f(2, kerr.EligibleLeadersNotAvailable, 2, 2)
}
