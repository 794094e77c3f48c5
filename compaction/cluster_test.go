package compaction_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/varvelog/varve/compaction"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// replicas is the hot store of a broker of a cluster as compaction sees it.
type replicas struct {
	c     *tiertest.Cluster
	b     *tiertest.Broker
	moved []string // partitions whose log start was moved here
}

func (o *replicas) log(match func(*tiertest.History) bool) *tiertest.History {
	for _, h := range o.c.Logs {
		if match(h) {
			return h
		}
	}
	return nil
}

func (o *replicas) Standing(tp base.TopicPartition) (compaction.Standing, error) {
	h := o.log(func(h *tiertest.History) bool { return h.TP == tp })
	return compaction.Standing{LogStart: o.b.Hot.LogStart(h), HighWatermark: h.End()}, nil
}

func (o *replicas) AdvanceLogStart(_ context.Context, log base.LogID, to base.Offset) error {
	h := o.log(func(h *tiertest.History) bool { return h.Log == log })
	o.moved = append(o.moved, h.TP.String())
	o.b.Hot.SetLogStart(h, to)
	return nil
}

func runnerOf(c *tiertest.Cluster, b *tiertest.Broker) (*compaction.Runner, *replicas) {
	c.T.Helper()
	o := &replicas{c: c, b: b}
	r, err := compaction.New(compaction.Options{
		Bucket: &tiertest.Bucket{Bucket: c.Mem, F: b.Faults}, Tiering: b.Tier, Meta: b.Store, Owner: o, BrokerID: b.ID, BrokerEpoch: b.Epoch, Clock: c.Clock,
	})
	if err != nil {
		c.T.Fatal(err)
	}
	return r, o
}

func appendTo(c *tiertest.Cluster, logs []*tiertest.History, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i, h := range logs {
		c.Append(h, rnd, 2+6*(i%3), 100)
	}
}

func run(t *testing.T, c *tiertest.Cluster, runners ...*compaction.Runner) {
	t.Helper()
	for range 3 {
		for _, r := range runners {
			if err := r.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.SyncRoots()
		c.Clock.Advance(2 * grace)
	}
}

// TestDeadIncarnationsOfOthers ends a broker in the middle of an upload. While it may come back, its intent keeps what it wrote;
// when it has registered anew, the controller, which is another broker, takes the intent away and sweeps.
func TestDeadIncarnationsOfOthers(t *testing.T) {
	for n := 1; ; n++ {
		hit := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := tiertest.NewCluster(t, 2, nil)
			one, two := c.Brokers[0], c.Brokers[1]
			logs := c.Topic("t", 3, forever)
			for _, h := range logs {
				c.Move(h, two)
			}
			c.Drain()
			appendTo(c, logs, 1)
			c.Drain()
			appendTo(c, logs, 2)
			two.Faults.Arm(n, tiertest.CrashAfter)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			two.Faults.Hook(cancel)
			_, _ = two.Tier.RunOnce(ctx)
			intents, err := c.Admin.Intents(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			covered := existing(c, intents)
			if hit = two.Faults.Disarm(); !hit {
				return
			}
			r, _ := runnerOf(c, one)
			run(t, c, r)
			if left, err := c.Admin.Intents(t.Context()); err != nil || len(left) != len(intents) {
				t.Errorf("%d of %d intents of a broker that may be alive are left (%v)", len(left), len(intents), err)
			}
			if now := existing(c, intents); now < covered {
				t.Errorf("%d of %d objects are left, under an intent", now, covered)
			}
			zombie := two.Tier
			c.Register(two)
			run(t, c, r)
			if left, err := c.Admin.Intents(t.Context()); err != nil || len(left) != 0 {
				t.Errorf("intents of an incarnation that is over: %+v %v", left, err)
			}
			if rep := c.Fsck(grace); !rep.Clean() || rep.InGrace != 0 {
				t.Errorf("after the scrub: %+v", rep)
			}
			_, _ = zombie.RunOnce(t.Context())
			c.Drain()
			c.CheckReads()
			c.CheckHistory()
		})
		if !hit {
			if n < 5 {
				t.Fatalf("a round has %d operations", n)
			}
			return
		}
	}
}

// existing counts the objects of intents that are in the bucket.
func existing(c *tiertest.Cluster, intents []metadata.Intent) (n int) {
	for _, in := range intents {
		for _, object := range in.Objects {
			if slices.Contains(c.Mem.Keys(), object) {
				n++
			}
		}
	}
	return n
}

// TestTwoControllers stops the controller at each operation of all its jobs in turn. Another broker becomes the controller, does the
// same jobs, tiers, drops and deletes, before the first one goes on as if nothing had happened.
func TestTwoControllers(t *testing.T) {
	for n := 1; ; n++ {
		hit := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := tiertest.NewCluster(t, 2, func(o *tiering.Options) { o.MaxUploads, o.SpillEntries = 1, 3 })
			one, two := c.Brokers[0], c.Brokers[1]
			logs := c.Topic("t", 3, map[string]string{"retention.ms": "-1", "retention.bytes": "9000"})
			dead := c.Topic("dead", 2, forever)
			c.Move(logs[1], two)
			for seed := range uint64(4) {
				appendTo(c, c.Logs, seed)
				c.Drain()
			}
			gone(t, c, "dead", dead)
			second := c.Topic("second", 2, forever)
			appendTo(c, c.Logs, 8)
			c.Drain()
			first, _ := runnerOf(c, one)
			other, _ := runnerOf(c, two)
			c.Clock.Advance(2 * grace)
			one.Faults.Arm(n, tiertest.Pass)
			one.Faults.Hook(func() {
				c.SyncRoots() // grace periods pass in no time here, which a watch needs
				c.Claim(two.ID)
				c.Move(logs[2], two)
				gone(t, c, "second", second)
				for range 2 {
					if err := other.RunOnce(t.Context()); err != nil {
						t.Fatal(err)
					}
					appendTo(c, logs, 9)
					if _, err := two.Tier.RunOnce(t.Context()); err != nil {
						t.Fatal(err)
					}
					c.Clock.Advance(2 * grace)
				}
			})
			_ = first.RunOnce(t.Context()) // what it was about to read may be gone
			if hit = one.Faults.Disarm(); !hit {
				return
			}
			if rep := c.Fsck(24 * time.Hour); rep.Missing+rep.Corrupt != 0 {
				t.Fatalf("fsck: %+v", rep)
			}
			c.Drain()
			run(t, c, first, other)
			c.CheckReads()
			c.CheckHistory()
			if rep := c.Fsck(grace); !rep.Clean() || rep.InGrace != 0 || rep.Logs != int64(len(logs)) {
				t.Errorf("after everything settled: %+v", rep)
			}
			if left, err := c.Admin.DeletedLogs(t.Context()); err != nil || len(left) != 0 {
				t.Errorf("deleted logs: %v %v", left, err)
			}
		})
		if !hit {
			if n < 20 {
				t.Fatalf("all jobs have %d operations", n)
			}
			return
		}
	}
}

// gone deletes a topic, and everybody hears of it.
func gone(t *testing.T, c *tiertest.Cluster, name string, logs []*tiertest.History) {
	t.Helper()
	topic, ok := c.Admin.Image().Topic(name)
	if !ok {
		t.Fatalf("topic %s does not exist", name)
	}
	if err := c.Admin.DeleteTopic(t.Context(), topic.ID); err != nil {
		t.Fatal(err)
	}
	c.Forget(logs)
}

// TestRetentionIsTheLeaders runs the jobs on every broker: each partition's log start is moved on its leader alone, and again by
// the next leader, who goes on where the first ended.
func TestRetentionIsTheLeaders(t *testing.T) {
	c := tiertest.NewCluster(t, 2, nil)
	one, two := c.Brokers[0], c.Brokers[1]
	logs := c.Topic("t", 2, map[string]string{"retention.ms": "-1", "retention.bytes": "2000"})
	c.Move(logs[1], two)
	r1, o1 := runnerOf(c, one)
	r2, o2 := runnerOf(c, two)
	for seed := range uint64(4) {
		appendTo(c, logs, seed)
		c.Drain()
		run(t, c, r1, r2)
	}
	for _, check := range []struct {
		o    *replicas
		want string
	}{{o1, "t-0"}, {o2, "t-1"}} {
		if len(check.o.moved) == 0 {
			t.Errorf("broker %d applied no retention", check.o.b.ID)
		}
		for _, tp := range check.o.moved {
			if tp != check.want {
				t.Errorf("broker %d moved the log start of %s", check.o.b.ID, tp)
			}
		}
	}
	before, _ := two.Tier.Root(logs[0].Log)
	c.Move(logs[0], two)
	appendTo(c, logs, 7)
	c.Drain()
	run(t, c, r1, r2)
	if after, _ := one.Tier.Root(logs[0].Log); after.Start <= before.Start {
		t.Errorf("the new leader left the log start at %d", after.Start)
	}
	c.CheckReads()
	c.CheckHistory()
	if rep := c.Fsck(grace); !rep.Clean() || rep.InGrace != 0 {
		t.Errorf("fsck: %+v", rep)
	}
}
