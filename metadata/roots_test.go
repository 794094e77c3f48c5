package metadata_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

func TestSwapRoots(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	topic := create(t, s, "t", 100)
	var roots []*metadata.Root
	for i := range topic.Partitions {
		p := &topic.Partitions[i]
		roots = append(roots, &metadata.Root{Log: p.Log, Epoch: p.LeaderEpoch, Seq: 1, Object: fmt.Sprint("o", i)})
	}
	stale, unknown := *roots[0], metadata.Root{Log: 999_999}
	stale.Epoch--
	all := append([]*metadata.Root{&stale, &unknown}, roots...)
	errs := s.SwapRoots(t.Context(), all)
	if !errors.Is(errs[0], kerr.FencedLeaderEpoch) || !errors.Is(errs[1], kerr.UnknownTopicOrPartition) {
		t.Errorf("stale: %v, unknown: %v", errs[0], errs[1])
	}
	for i, err := range errs[2:] {
		if err != nil || roots[i].Rev == 0 {
			t.Fatalf("root %d: %v at %d", i, err, roots[i].Rev)
		}
	}
	stored, err := s.Roots(t.Context())
	if err != nil || len(stored) != 100 || stored[roots[7].Log] != *roots[7] {
		t.Fatalf("%d roots, %+v, want %+v (%v)", len(stored), stored[roots[7].Log], *roots[7], err)
	}

	// Of two swaps from the same revision one commits; the rest of the batch is not held back by the other.
	again := *roots[0]
	again.Seq = 2
	errs = s.SwapRoots(t.Context(), []*metadata.Root{&again, roots[1]})
	if errs[0] != nil || errs[1] != nil {
		t.Fatal(errs)
	}
	roots[0].Seq = 3
	errs = s.SwapRoots(t.Context(), []*metadata.Root{roots[0], roots[2]})
	if !errors.Is(errs[0], kerr.FencedLeaderEpoch) || errs[1] != nil {
		t.Fatal(errs)
	}

	// A new incarnation has the next epoch: the old one is fenced (I4).
	if _, err := s.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "h", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if errs = s.SwapRoots(t.Context(), []*metadata.Root{roots[3]}); !errors.Is(errs[0], kerr.FencedLeaderEpoch) {
		t.Errorf("former epoch: %v", errs[0])
	}
	p, _, _ := s.Image().Log(roots[3].Log)
	roots[3].Epoch = p.LeaderEpoch
	if errs = s.SwapRoots(t.Context(), []*metadata.Root{roots[3]}); errs[0] != nil {
		t.Errorf("current epoch: %v", errs[0])
	}

	// A deleted topic takes no root, and its roots go with its tombstones.
	if err := s.DeleteTopic(t.Context(), topic.ID); err != nil {
		t.Fatal(err)
	}
	if errs = s.SwapRoots(t.Context(), []*metadata.Root{roots[4]}); !errors.Is(errs[0], kerr.UnknownTopicOrPartition) {
		t.Errorf("deleted: %v", errs[0])
	}
	if err := s.ForgetLog(t.Context(), roots[4].Log); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Root(t.Context(), roots[4].Log); ok || err != nil {
		t.Errorf("forgotten root: %v %v", ok, err)
	}
	if _, ok, err := s.Root(t.Context(), roots[5].Log); !ok || err != nil {
		t.Errorf("root of a log that is not forgotten: %v %v", ok, err)
	}
}

// TestSwapUnknown has the transaction fail after it took effect: no second attempt may be made with the old revision.
func TestSwapUnknown(t *testing.T) {
	c := newCrashing()
	defer c.Close()
	s := prepared(t, c, operation{before: 1})
	defer closeStore(t, s)
	topic, _ := s.Image().Topic("t")
	root := &metadata.Root{Log: topic.Partitions[0].Log, Epoch: topic.Partitions[0].LeaderEpoch, Seq: 1}
	c.arm(0, memkv.FailAfter, true)
	if errs := s.SwapRoots(t.Context(), []*metadata.Root{root}); !errors.Is(errs[0], errCrash) || root.Rev != 0 {
		t.Fatalf("%v, revision %d", errs[0], root.Rev)
	}
	stored, ok, err := s.Root(t.Context(), root.Log)
	if err != nil || !ok || stored.Seq != 1 {
		t.Fatalf("%+v %v %v", stored, ok, err)
	}
}

func TestIntents(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	var ids []string
	for i := range 300 {
		in := metadata.Intent{ID: fmt.Sprintf("%03d", i), Broker: 1, Epoch: 5, Objects: []string{"a", "b"}}
		if err := s.PutIntent(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, in.ID)
	}
	if err := s.DeleteIntents(t.Context(), append(ids[1:], "none")...); err != nil {
		t.Fatal(err)
	}
	left, err := s.Intents(t.Context())
	if err != nil || len(left) != 1 || left[0].ID != "000" || len(left[0].Objects) != 2 {
		t.Fatalf("%+v %v", left, err)
	}
}

func TestProducerIDsAreNeverReused(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	var mu sync.Mutex
	seen := map[base.ProducerID]bool{}
	for range 3 { // three incarnations
		var wg sync.WaitGroup
		for range 2 { // two brokers
			s := reopen(t, kv)
			defer closeStore(t, s)
			for range 4 {
				wg.Go(func() {
					for range 700 {
						id, err := s.NextProducerID(t.Context())
						mu.Lock()
						if err != nil || seen[id] || id < 0 {
							t.Errorf("id %d, seen %v, %v", id, seen[id], err)
						}
						seen[id] = true
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
	}
	if len(seen) != 3*2*4*700 {
		t.Errorf("%d ids", len(seen))
	}
}

func TestRegisterBrokerBumpsEpochs(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	create(t, s, "t", 250)
	for incarnation := range 3 {
		before, _ := s.Image().Topic("t")
		epoch, err := s.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "h", Port: int32(incarnation)})
		if err != nil {
			t.Fatal(err)
		}
		if b := s.Image().Brokers(); len(b) != 1 || b[0].Epoch != epoch || b[0].Port != int32(incarnation) {
			t.Errorf("brokers %+v, epoch %d", b, epoch)
		}
		after, _ := s.Image().Topic("t")
		for i := range after.Partitions {
			was, is := before.Partitions[i], after.Partitions[i]
			if is.LeaderEpoch != was.LeaderEpoch+1 || is.Leader != 1 || is.Log != was.Log || is.Rev <= was.Rev {
				t.Fatalf("%+v became %+v", was, is)
			}
		}
	}
}

// TestSwapBehindTheImage swaps through a store whose image is out of date: what counts is the partition's key (I4).
func TestSwapBehindTheImage(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	writer := open(t, kv, nil)
	topic := create(t, writer, "t", 2)
	c := &cutOff{KV: kv, end: make(chan error, 1)}
	s := reopen(t, c)
	defer closeStore(t, s)
	root := func(n int) *metadata.Root {
		return &metadata.Root{Log: topic.Partitions[n].Log, Epoch: topic.Partitions[n].LeaderEpoch, Seq: 1}
	}
	// The key is written anew with the same leader epoch, as a change of the ISR does: the swap commits.
	keys, _, err := kv.List(t.Context(), metadata.PartitionPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Txn(t.Context(), nil, []metadata.Op{metadata.Put(keys[0].Key, keys[0].Value)}); err != nil {
		t.Fatal(err)
	}
	if errs := s.SwapRoots(t.Context(), []*metadata.Root{root(0)}); errs[0] != nil {
		t.Errorf("after a change that keeps the epoch: %v", errs[0])
	}
	// The leader epoch moves on: the swap is fenced, though the store does not know yet.
	if _, err := writer.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "h", Port: 2}); err != nil {
		t.Fatal(err)
	}
	if p, _, _ := s.Image().Log(topic.Partitions[1].Log); p.LeaderEpoch != topic.Partitions[1].LeaderEpoch {
		t.Fatal("the image is not out of date: the test shows nothing")
	}
	if errs := s.SwapRoots(t.Context(), []*metadata.Root{root(1)}); !errors.Is(errs[0], kerr.FencedLeaderEpoch) {
		t.Errorf("after the epoch moved on: %v", errs[0])
	}
	if _, ok, err := s.Root(t.Context(), topic.Partitions[1].Log); ok || err != nil {
		t.Errorf("a fenced swap wrote: %v %v", ok, err)
	}
}

// TestSwapNeedsItsIntents has a swap reach the KV when its intent is gone: nothing is written, for the sweep may have looked
// in between (I6).
func TestSwapNeedsItsIntents(t *testing.T) {
	kv := memkv.New(memkv.Options{})
	defer kv.Close()
	s := open(t, kv, nil)
	topic := create(t, s, "t", 130)
	var roots []*metadata.Root
	for i := range topic.Partitions {
		p := &topic.Partitions[i]
		roots = append(roots, &metadata.Root{Log: p.Log, Epoch: p.LeaderEpoch, Seq: 1, Object: fmt.Sprint("o", i)})
	}
	for _, id := range []string{"round", "attempt"} {
		if err := s.PutIntent(t.Context(), metadata.Intent{ID: id, Broker: 1, Epoch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.SwapRoots(t.Context(), roots, "round", "attempt")...); err != nil {
		t.Fatalf("with both intents: %v", err)
	}
	if err := s.DeleteIntents(t.Context(), "round"); err != nil {
		t.Fatal(err)
	}
	for i, err := range s.SwapRoots(t.Context(), roots, "round", "attempt") {
		if !errors.Is(err, kerr.FencedLeaderEpoch) {
			t.Fatalf("root %d without the first intent: %v", i, err)
		}
		if stored, _, err := s.Root(t.Context(), roots[i].Log); err != nil || stored != *roots[i] {
			t.Fatalf("root %d is %+v, want %+v (%v)", i, stored, *roots[i], err)
		}
	}
	if err := errors.Join(s.SwapRoots(t.Context(), roots, "attempt")...); err != nil {
		t.Fatalf("with the other intent alone: %v", err)
	}
}
