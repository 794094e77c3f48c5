package tiertest

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/segment"
)

// Cluster is several brokers' tiering over one bucket and one metadata KV. Every log is replicated to all of them at once, each
// seals it elsewhere, and leadership moves between them.
type Cluster struct {
	T       *testing.T
	Mem     *mem.Bucket
	KV      *memkv.KV
	Clock   *TickingClock
	Tune    func(*tiering.Options)
	Brokers []*Broker // of ids 1, 2, ...
	Logs    []*History
	Admin   *metadata.Store // the controller, past every fault
	reign   int64
	shown   chan struct{} // signalled by each image of Admin
}

// Broker is one of a Cluster. Its faults are those of its own operations.
type Broker struct {
	ID     base.BrokerID
	Epoch  int64 // of its registration
	Faults *Faults
	Store  *metadata.Store
	Tier   *tiering.Tiering
	Hot    *Replica
	shown  chan struct{} // signalled by each image
	rooted chan struct{} // signalled by each root
}

// NewCluster returns brokers that serve and follow the roots; tests call RunOnce. Broker 1 is the controller. tune may be nil.
func NewCluster(t *testing.T, brokers int, tune func(*tiering.Options)) *Cluster {
	t.Helper()
	c := &Cluster{T: t, Tune: tune, Clock: &TickingClock{clock.NewManual(time.Unix(1_750_000_000, 0))}, KV: memkv.New(memkv.Options{}), shown: make(chan struct{}, 1)}
	c.Mem = mem.New(mem.Options{Clock: c.Clock, ForbidReuse: true})
	t.Cleanup(c.KV.Close)
	c.Admin = c.open(1, c.KV)
	c.Admin.Subscribe(func(_, _ *metadata.Image) { signal(c.shown) })
	for id := range base.BrokerID(brokers) {
		b := &Broker{ID: id + 1, Faults: &Faults{}, shown: make(chan struct{}, 1), rooted: make(chan struct{}, 1)}
		b.Hot = newReplica(c, b)
		c.Brokers = append(c.Brokers, b)
		b.Store = c.open(b.ID, faultyKV{c.KV, b.Faults})
		b.Store.Subscribe(func(_, _ *metadata.Image) { signal(b.shown) })
		c.Register(b)
	}
	return c
}

// check fails the test on an error.
func (c *Cluster) check(err error) {
	c.T.Helper()
	if err != nil {
		c.T.Fatal(err)
	}
}

func (c *Cluster) open(id base.BrokerID, kv metadata.KV) *metadata.Store {
	c.T.Helper()
	s, err := metadata.Open(context.Background(), metadata.Options{KV: kv, BrokerID: id, Logger: slog.New(slog.DiscardHandler), Static: map[string]string{"varve.gc.grace.ms": "60000"}})
	c.check(err)
	c.T.Cleanup(func() { _ = s.Close() })
	return s
}

// Register registers a broker, anew where it was before: then it is another incarnation, which has nothing in memory, and
// others lead what it led. The former incarnation's Tiering is not stopped: it may not know.
func (c *Cluster) Register(b *Broker) {
	c.T.Helper()
	ctx := context.Background()
	for _, h := range c.Logs {
		if p := c.partition(h); p.Leader == b.ID {
			c.Move(h, c.Brokers[int(b.ID)%len(c.Brokers)])
		}
	}
	var err error
	b.Epoch, err = b.Store.RegisterBroker(ctx, metadata.Broker{ID: b.ID, Host: "127.0.0.1", Port: 9092})
	c.check(err)
	c.catchUp()
	c.Claim(1)
	if b.ID > 1 || len(c.Brokers) > 1 {
		c.check(c.Admin.UnfenceBroker(ctx, c.reign, b.ID, b.Epoch))
	}
	c.Sync()
	tier := c.NewTiering(b)
	c.check(tier.Follow(ctx))
	c.T.Cleanup(tier.Stop)
	b.Tier = tier
}

// Claim makes a broker the controller; the Cluster goes on to act for it.
func (c *Cluster) Claim(id base.BrokerID) {
	c.T.Helper()
	admin := c.Admin
	if id != 1 {
		admin = c.open(id, c.KV)
	}
	var err error
	c.reign, err = admin.ClaimController(context.Background())
	c.check(err)
	c.catchUp()
}

// NewTiering returns a Tiering of a broker as it is registered now, which does not follow the roots yet.
func (c *Cluster) NewTiering(b *Broker) *tiering.Tiering {
	c.T.Helper()
	bucket := &Bucket{Bucket: c.Mem, F: b.Faults}
	o := tiering.Options{Bucket: bucket, Meta: b.Store, Source: b.Hot, OnRoot: b.Hot.OnRoot, BrokerID: b.ID, BrokerEpoch: b.Epoch, Clock: c.Clock, RetryMin: time.Millisecond, RetryMax: time.Millisecond,
		MaxObjectBytes: 16 << 10, PackBelowBytes: 4 << 10, SpillEntries: 8, Layout: segment.Layout{BlockBytes: 1 << 10, IndexBytes: 512}}
	if c.Tune != nil {
		c.Tune(&o)
	}
	t, err := tiering.New(o)
	c.check(err)
	return t
}

// Topic creates a topic whose partitions the first broker leads, with a replica on each.
func (c *Cluster) Topic(name string, partitions int32, configs map[string]string) []*History {
	c.T.Helper()
	topic, err := c.Admin.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: int16(len(c.Brokers)), Configs: configs}, false)
	c.check(err)
	var logs []*History
	for i := range topic.Partitions {
		p := &topic.Partitions[i]
		h := &History{TP: p.TP, Log: p.Log, TopicID: p.TopicID}
		c.Logs, logs = append(c.Logs, h), append(logs, h)
		if p.Leader != 1 {
			c.Move(h, c.Brokers[0])
		}
		h.Epochs = []base.EpochStart{{Epoch: c.partition(h).LeaderEpoch}}
	}
	c.Sync()
	c.Learn()
	return logs
}

func (c *Cluster) partition(h *History) *metadata.Partition {
	c.T.Helper()
	p, _, ok := c.Admin.Image().Log(h.Log)
	if !ok {
		c.T.Fatalf("%s is not in the image", h.TP)
	}
	return p
}

// Move makes a broker the leader of a log, in the next epoch. Who waits for it with Sync and Learn knows.
func (c *Cluster) Move(h *History, to *Broker) {
	c.T.Helper()
	p := c.partition(h)
	next := p.State()
	next.Leader, next.LeaderEpoch, next.PartitionEpoch = to.ID, next.LeaderEpoch+1, next.PartitionEpoch+1
	applied, err := c.Admin.ApplyPartitionChanges(context.Background(), c.reign, []metadata.PartitionChange{{Partition: *p, Next: next}})
	c.check(err)
	if !applied[0] {
		c.T.Fatalf("%s did not move to broker %d", h.TP, to.ID)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Epochs = append(h.Epochs, base.EpochStart{Epoch: next.LeaderEpoch, Start: h.End()})
}

// Sync returns when every broker's image shows what was written.
func (c *Cluster) Sync() {
	c.T.Helper()
	want := c.written()
	for _, b := range c.Brokers {
		for b.Store.Image().Revision() < want {
			c.await(b.shown)
		}
	}
}

// written is the revision of the last write of a key that images show. The revisions of two images cannot be compared: each goes
// ahead with what it is told of other keys.
func (c *Cluster) written() (revision int64) {
	c.T.Helper()
	kvs, _, err := c.KV.List(context.Background(), "/varve/image/")
	c.check(err)
	for _, kv := range kvs {
		revision = max(revision, kv.ModRevision)
	}
	return revision
}

// catchUp returns when the controller's image shows what was written.
func (c *Cluster) catchUp() {
	c.T.Helper()
	for want := c.written(); c.Admin.Image().Revision() < want; {
		c.await(c.shown)
	}
}

// Forget takes logs of a deleted topic off the Cluster, and returns when every broker's image is without them.
func (c *Cluster) Forget(logs []*History) {
	c.T.Helper()
	c.Logs = slices.DeleteFunc(c.Logs, func(h *History) bool { return slices.Contains(logs, h) })
	shows := func(s *metadata.Store) bool {
		return slices.ContainsFunc(logs, func(h *History) bool { _, _, ok := s.Image().Log(h.Log); return ok })
	}
	for shows(c.Admin) {
		c.await(c.shown)
	}
	for _, b := range c.Brokers {
		for shows(b.Store) {
			c.await(b.shown)
		}
		b.Hot.Forget(logs)
	}
}

// Learn shows every broker's image to its hot store.
func (c *Cluster) Learn() {
	for _, b := range c.Brokers {
		b.Hot.Learn(b.Store.Image())
	}
}

// SyncRoots returns when every broker has seen the current root of every log.
func (c *Cluster) SyncRoots() {
	c.T.Helper()
	roots, err := c.Admin.Roots(context.Background())
	c.check(err)
	for _, b := range c.Brokers {
		for log, want := range roots {
			for root, _ := b.Tier.Root(log); root.Rev < want.Rev || !b.Hot.told(want); root, _ = b.Tier.Root(log) {
				c.await(b.rooted)
			}
		}
	}
}

// await waits for a signal.
func (c *Cluster) await(signalled <-chan struct{}) {
	c.T.Helper()
	select {
	case <-signalled:
	case <-time.After(30 * time.Second): // a hang, not a measure
		c.T.Fatal("nothing came")
	}
}

// Drain takes rounds of all brokers until everything sealed by a leader is tiered, and everybody knows.
func (c *Cluster) Drain() {
	c.T.Helper()
	c.Sync()
	c.Learn()
	var last error
	for range 30 {
		left := 0
		for _, b := range c.Brokers {
			if _, err := b.Tier.RunOnce(context.Background()); err != nil {
				last = err
			}
			left += len(b.Hot.Sealed(1 << 62))
		}
		if left == 0 {
			c.SyncRoots()
			return
		}
	}
	c.T.Fatalf("sealed ranges are left after 30 rounds, last error: %v", last)
}

// CheckReads reads every log on every broker, as it can be read there: cold up to where the hot part begins, which holds the
// rest. It compares every byte.
func (c *Cluster) CheckReads() {
	c.T.Helper()
	for _, b := range c.Brokers {
		for _, h := range c.Logs {
			hot := b.Hot.Start(h)
			bounds, _ := b.Tier.Reader().Bounds(h.Log)
			var got []byte
			for at := bounds.Start; at < hot; {
				batches, err := b.Tier.Reader().Read(context.Background(), h.Log, at, 3000)
				if err != nil || len(batches) == 0 {
					c.T.Fatalf("broker %d reads %s at %d, tiered %+v, hot from %d: %d batches, %v", b.ID, h.TP, at, bounds, hot, len(batches), err)
				}
				for _, x := range batches {
					if x.BaseOffset() < hot {
						got = append(got, x...)
					}
				}
				at = batches[len(batches)-1].NextOffset()
			}
			var want []byte
			for _, x := range h.Batches {
				if x.NextOffset() > bounds.Start && x.BaseOffset() < hot {
					want = append(want, x...)
				}
			}
			if !bytes.Equal(got, want) {
				c.T.Fatalf("broker %d: %d bytes of %s read, %d expected, or they differ", b.ID, len(got), h.TP, len(want))
			}
		}
	}
}

// CheckHistory looks at every revision of the KV: a root was swapped only under the leader epoch of its partition (I4), tiered
// ends and log starts never went back, and no sequence came twice.
func (c *Cluster) CheckHistory() {
	c.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	all := <-c.KV.Watch(ctx, "/varve/", 2)
	c.check(all.Err)
	epochs, roots := map[base.LogID]base.LeaderEpoch{}, map[base.LogID]metadata.Root{}
	for _, e := range all.Events {
		switch {
		case e.Deleted:
		case strings.HasPrefix(e.KV.Key, "/varve/image/partition/"):
			var p struct {
				Log         base.LogID
				LeaderEpoch base.LeaderEpoch
			}
			c.check(json.Unmarshal(e.KV.Value, &p))
			epochs[p.Log] = p.LeaderEpoch
		case strings.HasPrefix(e.KV.Key, "/varve/root/"):
			var r metadata.Root
			c.check(json.Unmarshal(e.KV.Value, &r))
			old := roots[r.Log]
			if r.Epoch != epochs[r.Log] || r.TieredEnd < old.TieredEnd || r.Start < old.Start || r.Epoch == old.Epoch && r.Seq <= old.Seq {
				c.T.Errorf("revision %d, leader epoch %d: root %+v after %+v", e.KV.ModRevision, epochs[r.Log], r, old)
			}
			roots[r.Log] = r
		}
	}
}

// Fsck checks the bucket with a grace period, as of the Cluster's clock.
func (c *Cluster) Fsck(grace time.Duration) tiering.Report {
	c.T.Helper()
	rep, err := tiering.Fsck(context.Background(), c.Mem, tiering.FsckOptions{Grace: grace, Now: c.Clock.Now()})
	c.check(err)
	return rep
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
