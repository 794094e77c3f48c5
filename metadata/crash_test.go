package metadata_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

var errCrash = errors.New("crash")

// crashing is a KV whose n-th operation, and unless once is set all that follow, fail; it remembers every log that a
// partition key ever named.
type crashing struct {
	*memkv.KV
	mu struct {
		sync.Mutex
		left    int // operations until the crash; negative: no crash
		outcome memkv.Outcome
		once    bool
		crashed bool
		logs    map[base.LogID]string
	}
}

func newCrashing() *crashing {
	c := &crashing{}
	c.mu.left = -1
	c.mu.logs = map[base.LogID]string{}
	c.KV = memkv.New(memkv.Options{Err: errCrash, Fault: func(string) memkv.Outcome {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.mu.crashed && !c.mu.once {
			return memkv.FailBefore
		}
		if c.mu.left < 0 {
			return memkv.Proceed
		}
		if c.mu.left--; c.mu.left >= 0 {
			return memkv.Proceed
		}
		c.mu.crashed = true
		return c.mu.outcome
	}})
	return c
}

func (c *crashing) arm(n int, outcome memkv.Outcome, once bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.left, c.mu.outcome, c.mu.once, c.mu.crashed = n, outcome, once, false
}

// disarm ends the faults and reports whether there was one.
func (c *crashing) disarm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	crashed := c.mu.crashed
	c.mu.left, c.mu.crashed = -1, false
	return crashed
}

func (c *crashing) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	c.mu.Lock()
	for _, op := range ops {
		if !op.Delete && strings.HasPrefix(op.Key, metadata.PartitionPrefix) {
			var r struct{ Log base.LogID }
			if err := json.Unmarshal(op.Value, &r); err != nil {
				panic(err)
			}
			c.mu.logs[r.Log] = op.Key
		}
	}
	c.mu.Unlock()
	return c.KV.Txn(ctx, cmps, ops)
}

func reopen(t *testing.T, kv metadata.KV) *metadata.Store {
	t.Helper()
	s, err := metadata.Open(t.Context(), metadata.Options{KV: kv, BrokerID: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkNothingForgotten asserts that every log whose key was ever written is a partition of a visible topic or has a
// tombstone, that nothing else has, and that no change is pending.
func checkNothingForgotten(t *testing.T, c *crashing, s *metadata.Store) {
	t.Helper()
	deleted, err := s.DeletedLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	buried := map[base.LogID]bool{}
	for _, d := range deleted {
		buried[d.Log] = true
	}
	keys, _, err := c.List(t.Context(), metadata.PartitionPrefix)
	if err != nil {
		t.Fatal(err)
	}
	live := 0
	c.mu.Lock()
	defer c.mu.Unlock()
	for log, key := range c.mu.logs {
		_, _, visible := s.Image().Log(log)
		if visible {
			live++
		}
		written := false
		for _, kv := range keys {
			written = written || kv.Key == key && strings.Contains(string(kv.Value), fmt.Sprintf(`"log":%d,`, uint64(log)))
		}
		if visible && buried[log] || written && !visible {
			t.Errorf("log %s of %s: visible %v, tombstone %v, key %v", log, key, visible, buried[log], written)
		}
	}
	if live != len(keys) {
		t.Errorf("%d partition keys, %d visible partitions", len(keys), live)
	}
}

// operation is a change of several transactions that is crashed at each of them.
type operation struct {
	name    string
	before  int32 // partitions of the topic before; 0: it does not exist
	after   int32
	run     func(ctx context.Context, s *metadata.Store) error
	created bool // the operation makes logs of its own
}

func operations() []operation {
	id := func(s *metadata.Store) base.TopicID {
		t, _ := s.Image().Topic("t")
		return t.ID
	}
	newTopic := func(n int32) func(context.Context, *metadata.Store) error {
		return func(ctx context.Context, s *metadata.Store) error {
			_, err := s.CreateTopic(ctx, metadata.TopicSpec{
				Name: "t", Partitions: n, ReplicationFactor: 1, Configs: map[string]string{"retention.ms": "1000"},
			}, false)
			return err
		}
	}
	grow := func(ctx context.Context, s *metadata.Store) error {
		return s.CreatePartitions(ctx, "t", 260, nil, false)
	}
	remove := func(ctx context.Context, s *metadata.Store) error { return s.DeleteTopic(ctx, id(s)) }
	return []operation{
		{name: "create small", before: 0, after: 3, run: newTopic(3)},
		{name: "create large", before: 0, after: 260, run: newTopic(260)},
		{name: "grow", before: 5, after: 260, run: grow},
		{name: "delete small", before: 5, after: 0, run: remove},
		{name: "delete large", before: 200, after: 0, run: remove},
	}
}

func TestCrashAtEveryOperation(t *testing.T) {
	for _, op := range operations() {
		for _, outcome := range []memkv.Outcome{memkv.FailBefore, memkv.FailAfter} {
			t.Run(fmt.Sprintf("%s/%d", op.name, outcome), func(t *testing.T) {
				n := 0
				for ; crashAt(t, op, n, outcome); n++ {
				}
				t.Logf("%d operations", n)
				if n < 2 {
					t.Errorf("only %d operations were made to fail", n)
				}
			})
		}
	}
}

// crashAt crashes the n-th operation of a change, reopens and checks. It reports whether there was an n-th operation.
func crashAt(t *testing.T, op operation, n int, outcome memkv.Outcome) bool {
	c := newCrashing()
	defer c.Close()
	s := prepared(t, c, op)
	c.arm(n, outcome, false)
	err := op.run(t.Context(), s)
	closeStore(t, s)
	crashed := c.disarm()
	if crashed != (err != nil) && !(crashed && op.after == 0) { // a deletion succeeds with its first transaction
		t.Fatalf("operation %d: crashed %v, error %v", n, crashed, err)
	}
	s = reopen(t, c)
	defer closeStore(t, s)
	checkOutcome(t, c, s, op, n, err)
	return crashed
}

func prepared(t *testing.T, c *crashing, op operation) *metadata.Store {
	t.Helper()
	s := reopen(t, c)
	if _, err := s.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "h", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if op.before > 0 {
		create(t, s, "t", op.before)
	}
	return s
}

func closeStore(t *testing.T, s *metadata.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func checkOutcome(t *testing.T, c *crashing, s *metadata.Store, op operation, n int, err error) {
	t.Helper()
	have := int32(0)
	if topic, ok := s.Image().Topic("t"); ok {
		have = int32(len(topic.Partitions))
	}
	if have != op.before && have != op.after {
		t.Errorf("operation %d: %d partitions are visible, want %d or %d", n, have, op.before, op.after)
	}
	if err == nil && have != op.after {
		t.Errorf("operation %d: reported success, but %d partitions are visible", n, have)
	}
	pending, _, lerr := c.List(t.Context(), metadata.PendingPrefix)
	if lerr != nil || len(pending) != 0 {
		t.Errorf("operation %d: still pending: %v %v", n, pending, lerr)
	}
	checkNothingForgotten(t, c, s)
	// The name can be used, whatever happened.
	if have == 0 {
		create(t, s, "t", 2)
	}
}

// TestFailureWithoutCrash lets one operation fail and the process live on: the sweeper finishes.
func TestFailureWithoutCrash(t *testing.T) {
	for _, op := range operations() {
		for _, outcome := range []memkv.Outcome{memkv.FailBefore, memkv.FailAfter} {
			for n := 0; failAt(t, op, n, outcome); n++ {
			}
		}
	}
}

func failAt(t *testing.T, op operation, n int, outcome memkv.Outcome) bool {
	c := newCrashing()
	defer c.Close()
	s := prepared(t, c, op)
	defer closeStore(t, s)
	c.arm(n, outcome, true)
	err := op.run(t.Context(), s)
	failed := c.disarm()
	await(t, c)
	create(t, s, "probe", 1) // an unrelated change: the image shows all that came before it
	checkOutcome(t, c, s, op, n, err)
	return failed
}

// await returns once nothing is pending.
func await(t *testing.T, kv metadata.KV) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a hang, not a measure
	defer cancel()
	_, revision, err := kv.List(ctx, metadata.PendingPrefix)
	if err != nil {
		t.Fatal(err)
	}
	changes := kv.Watch(ctx, metadata.PendingPrefix, revision+1)
	for {
		pending, _, err := kv.List(ctx, metadata.PendingPrefix)
		if err != nil {
			t.Fatal(err)
		}
		if len(pending) == 0 {
			return
		}
		if _, ok := <-changes; !ok {
			t.Fatal("pending changes were not finished")
		}
	}
}
