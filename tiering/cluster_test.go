package tiering_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// oneByOne makes the order of operations the same in every run.
func oneByOne(o *tiering.Options) { o.MaxUploads = 1 }

// pair is two brokers, of which the first leads three logs with ranges to tier: packed ones and longer ones.
func pair(t *testing.T, tune func(*tiering.Options)) (c *tiertest.Cluster, one, two *tiertest.Broker, logs []*tiertest.History) {
	c = tiertest.NewCluster(t, 2, tune)
	logs = c.Topic("t", 3, nil)
	appendAll(c, logs, 1)
	return c, c.Brokers[0], c.Brokers[1], logs
}

func appendAll(c *tiertest.Cluster, logs []*tiertest.History, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	c.Append(logs[0], rnd, 4, 50)
	c.Append(logs[1], rnd, 3, 40)
	c.Append(logs[2], rnd, 20, 150)
}

// settled checks everything when nobody does anything any more.
func settled(t *testing.T, c *tiertest.Cluster) {
	t.Helper()
	c.Drain()
	for _, b := range c.Brokers {
		for _, h := range c.Logs {
			if root, _ := b.Tier.Root(h.Log); root.TieredEnd != h.End() || b.Hot.Start(h) != h.End() {
				t.Fatalf("broker %d, %s: tiered to %d, trimmed to %d of %d", b.ID, h.TP, root.TieredEnd, b.Hot.Start(h), h.End())
			}
		}
	}
	c.CheckReads()
	c.CheckHistory()
	if rep := c.Fsck(24 * time.Hour); rep.Missing+rep.Corrupt != 0 {
		t.Fatalf("fsck: %+v", rep)
	}
}

func count(ops []string, op string) (n int) {
	for _, o := range ops {
		if strings.HasPrefix(o, op) {
			n++
		}
	}
	return n
}

// TestFollowerTrims has one broker tier: the other one knows at once, trims, and serves cold reads, without a request of its own.
func TestFollowerTrims(t *testing.T) {
	c, one, two, logs := pair(t, nil)
	two.Faults.Arm(1<<30, tiertest.FailBefore)
	for n, err := one.Tier.RunOnce(t.Context()); n > 0 || err != nil; n, err = one.Tier.RunOnce(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.SyncRoots()
	if ops := two.Faults.Ops(); len(ops) != 0 {
		t.Errorf("the follower asked: %v", ops)
	}
	settled(t, c)
	// What the leader's log start moves over is gone for the follower, too.
	if err := one.Tier.DropBelow(t.Context(), logs[2].Log, logs[2].End()/2); err != nil {
		t.Fatal(err)
	}
	c.SyncRoots()
	if b, _ := two.Tier.Reader().Bounds(logs[2].Log); b.Start != logs[2].End()/2 {
		t.Errorf("bounds on the follower: %+v", b)
	}
	c.CheckReads()
	// And a deleted topic leaves nothing in anybody's memory.
	topic, _ := c.Admin.Image().Topic("t")
	if err := c.Admin.DeleteTopic(t.Context(), topic.ID); err != nil {
		t.Fatal(err)
	}
	c.Forget(logs)
	for _, h := range logs {
		if err := c.Admin.ForgetLog(t.Context(), h.Log); err != nil {
			t.Fatal(err)
		}
	}
	last := c.Topic("last", 1, nil)
	c.Append(last[0], rand.New(rand.NewPCG(1, 1)), 3, 50)
	if _, err := one.Tier.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.SyncRoots()
	for _, b := range c.Brokers {
		for _, h := range logs {
			if root, ok := b.Tier.Root(h.Log); ok {
				t.Errorf("broker %d knows a root of a log that is gone: %+v", b.ID, root)
			}
		}
	}
}

// TestLeadershipMovesAnywhere moves the leadership of all logs, at each operation of a round on bucket and metadata store in
// turn, to a broker that seals elsewhere and tiers everything before the former leader goes on. Nothing is lost, nobody commits
// under an epoch that is over, both trim, and the former leader, whose hot store has not heard of it, uploads nothing again.
func TestLeadershipMovesAnywhere(t *testing.T) {
	for _, mode := range []tiertest.Mode{tiertest.Pass, tiertest.FailBefore, tiertest.FailAfter} {
		t.Run(mode.String(), func(t *testing.T) {
			for n := 1; moveAt(t, n, mode); n++ {
				if n > 200 {
					t.Fatal("a round has no end")
				}
			}
		})
	}
}

func moveAt(t *testing.T, n int, mode tiertest.Mode) (hit bool) {
	t.Run(fmt.Sprint(n), func(t *testing.T) {
		c, one, two, logs := pair(t, oneByOne)
		c.Drain()
		appendAll(c, logs, 2) // the round continues manifests
		one.Faults.Arm(n, mode)
		one.Faults.Hook(func() {
			for _, h := range logs {
				c.Move(h, two)
			}
			c.Sync()
			two.Hot.Learn(two.Store.Image())
			for len(two.Hot.Sealed(1<<62)) > 0 {
				if _, err := two.Tier.RunOnce(t.Context()); err != nil {
					t.Fatalf("the new leader: %v", err)
				}
			}
			appendAll(c, logs, 3)
		})
		_, err := one.Tier.RunOnce(t.Context())
		ops := one.Faults.Ops()
		if hit = one.Faults.Disarm(); !hit {
			return
		}
		one.Faults.Arm(1<<30, tiertest.FailBefore)
		for range 5 {
			_, _ = one.Tier.RunOnce(t.Context())
		}
		if again := one.Faults.Ops(); count(again, "bucket put") > 0 {
			t.Errorf("a leader that is none any more uploads: %v", again)
		}
		one.Faults.Disarm()
		settled(t, c)
		if in, err := c.Admin.Intents(t.Context()); err != nil || len(in) != 0 {
			t.Errorf("intents: %+v %v", in, err)
		}
		if t.Failed() {
			t.Log(err, ops)
		}
	})
	return hit
}

// TestLeadershipMovesAtRandom moves logs about while all brokers take rounds, and restarts some of them.
func TestLeadershipMovesAtRandom(t *testing.T) {
	seeds := uint64(30)
	if invariants.Enabled {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			c := tiertest.NewCluster(t, 3, nil)
			logs := c.Topic("t", 4, nil)
			for range 12 {
				for _, h := range logs {
					if rnd.IntN(2) == 0 {
						c.Append(h, rnd, 1+rnd.IntN(8), 100)
					}
				}
				var rounds sync.WaitGroup
				for _, b := range c.Brokers {
					if rnd.IntN(3) > 0 {
						b.Faults.Arm(1+rnd.IntN(40), tiertest.Mode(rnd.IntN(2))) // fails, or loses a reply
						rounds.Go(func() { _, _ = b.Tier.RunOnce(context.Background()) })
					}
				}
				for _, h := range logs {
					if rnd.IntN(3) == 0 {
						c.Move(h, c.Brokers[rnd.IntN(3)])
					}
				}
				if rnd.IntN(2) == 0 { // else the hot stores learn of it later
					c.Sync()
					c.Learn()
				}
				rounds.Wait()
				for _, b := range c.Brokers {
					b.Faults.Disarm()
				}
				if rnd.IntN(4) == 0 {
					c.Register(c.Brokers[rnd.IntN(3)])
				}
			}
			settled(t, c)
		})
	}
}

// TestNewLeaderAsksOnlyForWhatItDoesNotKnow counts what a new leader reads before its first commit.
func TestNewLeaderAsksOnlyForWhatItDoesNotKnow(t *testing.T) {
	c, one, two, logs := pair(t, oneByOne)
	other := c.Topic("other", 1, nil)[0]
	c.Drain()
	round := func(b *tiertest.Broker) []string {
		t.Helper()
		b.Faults.Arm(1<<30, tiertest.FailBefore)
		defer b.Faults.Disarm()
		if n, err := b.Tier.RunOnce(t.Context()); n == 0 || err != nil {
			t.Fatalf("%d ranges, %v", n, err)
		}
		return b.Faults.Ops()
	}
	move := func(to *tiertest.Broker) {
		for _, h := range logs {
			c.Move(h, to)
		}
		c.Sync()
		c.Learn()
		appendAll(c, logs, 9)
	}
	move(two)
	// Nothing says that the watch has shown all that the leader before committed.
	if ops := round(two); count(ops, "kv get") != len(logs) || count(ops, "bucket put") == 0 {
		t.Errorf("a new leader reads each root: %v", ops)
	}
	move(one)
	c.Append(other, rand.New(rand.NewPCG(1, 1)), 2, 50)
	c.Move(other, two)
	c.Sync()
	c.Learn()
	two.Hot.Sealed(1)
	round(two) // a root that is swapped after the leaders changed
	c.SyncRoots()
	if ops := round(one); count(ops, "kv get") != 0 || count(ops, "kv list") != 0 {
		t.Errorf("the watch has shown everything, and the new leader reads: %v", ops)
	}
	// Of many logs the roots are listed; how many the watch has not shown is up to it.
	many := c.Topic("many", 20, nil)
	rnd := rand.New(rand.NewPCG(2, 2))
	for _, h := range many {
		c.Append(h, rnd, 2, 20)
	}
	const few = 8
	if ops := round(one); count(ops, "kv get") > few || count(ops, "kv get") > 0 && count(ops, "kv list") > 0 {
		t.Errorf("the first round of many logs: %v", ops)
	}
	settled(t, c)
}

// heldBack is a metadata store whose root watch shows nothing after its list until it is released.
type heldBack struct {
	*metadata.Store
	kv *holding
}

// holding is a KV whose watches wait.
type holding struct {
	metadata.KV
	release chan struct{}
}

func (h *holding) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	in, out := h.KV.Watch(ctx, prefix, from), make(chan metadata.Events)
	if !strings.Contains(prefix, "/root/") {
		return in
	}
	go func() {
		defer close(out)
		select {
		case <-h.release:
		case <-ctx.Done():
			return
		}
		for batch := range in {
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// TestWatchIsBehind makes a broker the leader whose watch has shown nothing of what its predecessor tiered. It finds out before
// it uploads anything, and what the watch shows later takes nothing back.
func TestWatchIsBehind(t *testing.T) {
	c, one, two, logs := pair(t, oneByOne)
	two.Tier.Stop() // its hot store hears of nothing
	kv := &holding{KV: c.KV, release: make(chan struct{})}
	store, err := metadata.Open(t.Context(), metadata.Options{KV: kv, BrokerID: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	var mu sync.Mutex
	puts, told := []string{}, map[base.LogID][]base.Offset{}
	c.Tune = func(o *tiering.Options) {
		o.Meta = heldBack{Store: store, kv: kv}
		o.Bucket = putHook{o.Bucket, func(key string) { mu.Lock(); defer mu.Unlock(); puts = append(puts, key) }}
		inner := o.OnRoot
		o.OnRoot = func(root metadata.Root) {
			mu.Lock()
			told[root.Log] = append(told[root.Log], root.TieredEnd)
			mu.Unlock()
			inner(root)
		}
	}
	behind := c.NewTiering(two)
	if err := behind.Follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer behind.Stop()
	ends := map[base.LogID]base.Offset{}
	for len(one.Hot.Sealed(1)) > 0 {
		if _, err := one.Tier.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range logs {
		ends[h.Log] = h.End()
		if root, ok := behind.Root(h.Log); ok {
			t.Fatalf("the watch is not behind: %+v", root)
		}
		c.Move(h, two)
	}
	appendAll(c, logs, 4)
	c.Sync()
	for p, _, _ := store.Image().Log(logs[2].Log); p.Leader != two.ID; p, _, _ = store.Image().Log(logs[2].Log) {
		time.Sleep(time.Millisecond)
	}
	c.Learn()
	for len(two.Hot.Sealed(1)) > 0 {
		if _, err := behind.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range puts {
		if n := tiering.ParseName(key); n.Kind == tiering.KindSegment && n.Base < ends[n.Log] {
			t.Errorf("%s was uploaded again: the leader before tiered up to %d", key, ends[n.Log])
		}
	}
	close(kv.release)
	two.Tier = behind
	settled(t, c)
	mu.Lock()
	defer mu.Unlock()
	for _, h := range logs {
		if ends := told[h.Log]; !slices.IsSorted(ends) || len(ends) < 2 {
			t.Errorf("%s: told of tiered ends %v", h.TP, ends)
		}
	}
}

// TestRangeBehindAGap offers what cannot be added, because what lies before it is nowhere: nothing is uploaded, and nobody
// tries all the time.
func TestRangeBehindAGap(t *testing.T) {
	c, one, _, logs := pair(t, oneByOne)
	c.Drain()
	appendAll(c, logs, 5)
	h := logs[2]
	c.Drain()
	appendAll(c, logs, 6)
	one.Hot.Skip(h)
	one.Faults.Arm(1<<30, tiertest.FailBefore)
	_, err := one.Tier.RunOnce(t.Context())
	if ops := one.Faults.Ops(); err != nil || count(ops, "kv get") != 1 { // is what is known of the log true?
		t.Fatalf("%v, %v", err, ops)
	}
	one.Faults.Arm(1<<30, tiertest.FailBefore)
	for range 5 {
		if n, err := one.Tier.RunOnce(t.Context()); n != 0 || err != nil {
			t.Fatalf("%d ranges, %v", n, err)
		}
	}
	if ops := one.Faults.Ops(); len(ops) != 0 {
		t.Errorf("rounds that can do nothing: %v", ops)
	}
	if root, _ := one.Tier.Root(h.Log); root.TieredEnd == h.End() {
		t.Errorf("tiered to %d in spite of the gap", root.TieredEnd)
	}
	c.CheckHistory()
}
