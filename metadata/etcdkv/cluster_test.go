package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/ports"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/kvtest"
)

// patience bounds what should happen soon; it is no measure.
const patience = 40 * time.Second

// trio is a cluster of voters in one process. Members talk over real TCP.
type trio struct {
	electionMs uint // 0: the default
	t          *testing.T
	voters     []Voter
	clients    map[base.BrokerID]string
	dirs       map[base.BrokerID]string
	members    map[base.BrokerID]*Member
	tls        *TLS
}

func newTrio(t *testing.T, voters int) *trio {
	t.Helper()
	t.Parallel() // most of the time goes by in etcd's own pauses
	c := &trio{t: t, clients: map[base.BrokerID]string{}, dirs: map[base.BrokerID]string{}, members: map[base.BrokerID]*Member{}}
	for range voters {
		c.addNode()
	}
	t.Cleanup(func() {
		var wg sync.WaitGroup // each takes a second, in which etcd waits for its peers' connections
		for _, m := range c.members {
			wg.Go(func() { stop(t, m) })
		}
		wg.Wait()
	})
	return c
}

// addNode gives the next id an address and a directory, and puts it on the list of voters.
func (c *trio) addNode() base.BrokerID {
	id := base.BrokerID(len(c.dirs) + 1)
	c.clients[id], c.dirs[id] = freeAddr(c.t), c.t.TempDir()
	c.voters = append(c.voters, Voter{ID: id, PeerAddr: freeAddr(c.t)})
	return id
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addrs, err := ports.Loopback(1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

func (c *trio) options(id base.BrokerID) Options {
	return Options{
		NodeID: id, Voters: c.voters, DataDir: c.dirs[id], ClientAddr: c.clients[id], TLS: c.tls, Logger: slog.New(slog.DiscardHandler),
		ElectionMs: c.electionMs,
	}
}

func (c *trio) open(opts Options) (*Member, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	return Start(ctx, opts)
}

// start starts nodes at once, as a cluster needs that has no majority yet.
func (c *trio) start(ids ...base.BrokerID) {
	c.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, id := range ids {
		wg.Go(func() {
			m, err := c.open(c.options(id))
			if err != nil {
				c.t.Errorf("start %d: %v", id, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			c.members[id] = m
		})
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

func (c *trio) stop(id base.BrokerID) {
	c.t.Helper()
	m := c.members[id]
	delete(c.members, id)
	stop(c.t, m)
}

// crash stops a member without a hand-over.
func (c *trio) crash(id base.BrokerID) {
	c.t.Helper()
	c.members[id].core.muted.Store(true)
	c.members[id].etcd.Server.HardStop()
	c.stop(id)
}

func (c *trio) wipe(id base.BrokerID) {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dirs[id], "etcd")); err != nil {
		c.t.Fatal(err)
	}
}

// client opens a non-voter.
func (c *trio) client(id base.BrokerID) *Member {
	c.t.Helper()
	m, err := c.open(Options{NodeID: id, Voters: c.voters, TLS: c.tls, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.members[id] = m
	return m
}

// leader waits for the members to agree on one.
func (c *trio) leader() base.BrokerID {
	c.t.Helper()
	for ctx := c.context(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for id, m := range c.members {
			if leading, _ := m.Leadership(); leading {
				return id
			}
		}
	}
	c.t.Fatal("no leader")
	return 0
}

func (c *trio) context() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// put writes a key until it is acknowledged: an error leaves open whether it was written.
func (c *trio) put(kv metadata.KV, key, value string) {
	c.t.Helper()
	for ctx := c.context(); ; {
		_, err := kv.Txn(ctx, nil, []metadata.Op{metadata.Put(key, []byte(value))})
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *trio) want(kv metadata.KV, key, value string) {
	c.t.Helper()
	got, ok, err := kv.Get(c.context(), key)
	if err != nil || !ok || string(got.Value) != value {
		c.t.Fatalf("%s: %q %v %v, want %q", key, got.Value, ok, err, value)
	}
}

// awaitWaiting returns once a voter without data shows that it waits.
func (c *trio) awaitWaiting(id base.BrokerID) {
	c.t.Helper()
	opts := c.options(0)
	opts.EnsureDefaults()
	p, err := newProber(&opts)
	if err != nil {
		c.t.Fatal(err)
	}
	v, _ := voterOf(c.voters, id)
	for ctx := c.context(); p.one(ctx, v).state != waiting; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			c.t.Fatal("it does not wait")
		}
	}
}

func TestBootstrapInAnyOrder(t *testing.T) {
	c := newTrio(t, 3)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, id := range []base.BrokerID{3, 1, 2} {
		wg.Go(func() {
			m, err := c.open(c.options(id))
			if err != nil {
				t.Errorf("start %d: %v", id, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			c.members[id] = m
		})
		if id != 2 { // two of three do not found a cluster: the third may have data
			c.awaitWaiting(id)
		}
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	cluster := c.members[1].etcd.Server.Cluster().ID()
	for id, m := range c.members {
		if got := m.etcd.Server.Cluster().ID(); got != cluster {
			t.Errorf("member %d is of cluster %s, 1 of %s", id, got, cluster)
		}
		c.put(m.KV(), fmt.Sprintf("/k/%d", id), "v")
	}
	kvs, _, err := c.members[2].KV().List(c.context(), "/k/")
	if err != nil || len(kvs) != 3 {
		t.Errorf("%d keys (%v)", len(kvs), err)
	}
	for id := range base.BrokerID(3) {
		c.crash(id + 1)
	}
	c.start(3, 2, 1)
	c.want(c.members[1].KV(), "/k/3", "v")
}

// TestClusterKV is the acceptance test over three members, through one that leads, one that follows and a non-voter.
func TestClusterKV(t *testing.T) {
	c := newTrio(t, 3)
	c.electionMs = 2000 // what is not answered in time has an unknown outcome, which is not what this test is about
	c.start(1, 2, 3)
	leader := c.leader()
	c.client(9)
	for name, id := range map[string]base.BrokerID{"leader": leader, "follower": leader%3 + 1, "nonvoter": 9} {
		t.Run(name, func(t *testing.T) {
			kvtest.Run(t, kvtest.Subject{
				New: func(t *testing.T) metadata.KV {
					kv := c.members[id].KV()
					clear(t, kv)
					return kv
				},
				Compact: func(t *testing.T, kv metadata.KV, revision int64) {
					if _, err := kv.(*KV).others.Compact(t.Context(), revision); err != nil {
						t.Fatal(err)
					}
				},
			})
		})
	}
}

func clear(t *testing.T, kv metadata.KV) {
	t.Helper()
	kvs, _, err := kv.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for len(kvs) > 0 {
		n := min(len(kvs), metadata.MaxTxnOps)
		ops := make([]metadata.Op, n)
		for i := range ops {
			ops[i] = metadata.Delete(kvs[i].Key)
		}
		if _, err := kv.Txn(t.Context(), nil, ops); err != nil {
			t.Fatal(err)
		}
		kvs = kvs[n:]
	}
}

// TestLeaderLoss: writes go on through every other node when the leader stops and when it crashes, and what was acknowledged
// is still there.
func TestLeaderLoss(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	client := c.client(9)
	for i, end := range []func(base.BrokerID){c.stop, c.crash} {
		old := c.leader()
		survivor := c.members[old%3+1]
		_, changed := survivor.Leadership()
		watch := watchAgain(t, client.KV(), "/after/")
		c.put(c.members[old].KV(), fmt.Sprintf("/before/%d", i), "v")
		end(old)
		c.put(client.KV(), fmt.Sprintf("/after/%d", i), "v")
		c.put(survivor.KV(), fmt.Sprintf("/after/%d/survivor", i), "v")
		c.want(client.KV(), fmt.Sprintf("/before/%d", i), "v")
		if next := c.leader(); next == old {
			t.Fatal("the leader is the one that stopped")
		} else if next == old%3+1 {
			<-changed
		}
		awaitKey(t, watch, fmt.Sprintf("/after/%d", i))
		c.start(old)
		c.want(c.members[old].KV(), fmt.Sprintf("/after/%d", i), "v")
	}
}

// watchAgain watches a prefix; what it returns goes on where a watch has ended with an error that is no compaction, as any may: one
// hears nothing of a member for a while on a busy machine.
func watchAgain(t *testing.T, kv metadata.KV, prefix string) func(deadline <-chan time.Time) (metadata.Events, bool) {
	t.Helper()
	from := int64(1)
	events := kv.Watch(t.Context(), prefix, from)
	return func(deadline <-chan time.Time) (metadata.Events, bool) {
		for {
			select {
			case batch, ok := <-events:
				switch {
				case ok && batch.Err == nil:
					from = batch.Revision + 1
					return batch, true
				case errors.Is(batch.Err, metadata.ErrCompacted):
					t.Fatalf("the watch ended: %v", batch.Err)
				}
				t.Logf("the watch ended: %v", batch.Err)
				events = kv.Watch(t.Context(), prefix, from)
			case <-deadline:
				return metadata.Events{}, false
			}
		}
	}
}

// awaitKey reads a watch until it shows a key.
func awaitKey(t *testing.T, next func(deadline <-chan time.Time) (metadata.Events, bool), key string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		batch, ok := next(deadline)
		if !ok {
			t.Fatalf("no event of %s", key)
		}
		for _, e := range batch.Events {
			if e.KV.Key == key {
				return
			}
		}
	}
}

// TestLostMajority: a leader learns that it is none any more, and nothing is acknowledged.
func TestLostMajority(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	leader := c.leader()
	kv := c.members[leader].KV()
	c.put(kv, "/k", "1")
	leading, changed := c.members[leader].Leadership()
	for id := range base.BrokerID(3) {
		if id+1 != leader {
			c.crash(id + 1)
		}
	}
	for ctx := c.context(); leading; leading, changed = c.members[leader].Leadership() {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("it still believes that it leads")
		}
	}
	if c.members[leader].kv.localServes() {
		t.Error("its member would be used")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := kv.Txn(ctx, nil, []metadata.Op{metadata.Put("/k", []byte("2"))}); err == nil {
		t.Error("a write without a majority was acknowledged")
	}
	back := leader%3 + 1
	c.start(back)
	c.want(kv, "/k", "1")
}

func TestWipedDiskRejoins(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	c.put(c.members[1].KV(), "/k", "v")
	for _, id := range []base.BrokerID{2, c.leader()} {
		if c.members[id] == nil {
			continue
		}
		old := c.members[id].etcd.Server.MemberID()
		c.crash(id)
		c.wipe(id)
		c.start(id)
		m := c.members[id]
		if m.etcd.Server.MemberID() == old || m.etcd.Server.IsLearner() {
			t.Fatalf("member %s (learner: %v) after %s", m.etcd.Server.MemberID(), m.etcd.Server.IsLearner(), old)
		}
		c.want(m.KV(), "/k", "v")
	}
	infos, err := c.members[3].Members(c.context())
	if err != nil || len(infos) != 3 {
		t.Fatalf("members: %+v (%v)", infos, err)
	}
	for i, info := range infos {
		if info.ID != base.BrokerID(i+1) || !info.Healthy || info.Learner {
			t.Errorf("member %+v", info)
		}
	}
}

// TestTwoWipedDisks: two voters that have lost their disks do not found a second cluster while the third is down, nor after.
func TestTwoWipedDisks(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	c.put(c.members[3].KV(), "/k", "v")
	for id := range base.BrokerID(3) {
		c.crash(id + 1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, id := range []base.BrokerID{1, 2} {
		c.wipe(id)
		wg.Go(func() {
			if m, err := Start(ctx, c.options(id)); err == nil {
				stop(t, m)
				t.Errorf("voter %d started without data and without the third", id)
			} else if !strings.Contains(err.Error(), "needs all its voters") {
				t.Errorf("voter %d: %v", id, err)
			}
		})
	}
	c.awaitWaiting(1)
	c.awaitWaiting(2)
	third, err := func() (*Member, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return Start(ctx, c.options(3))
	}()
	if err == nil {
		stop(t, third)
		t.Error("one of three voters started alone")
	}
	cancel()
	wg.Wait()
}

func TestStrangersAreRefused(t *testing.T) {
	c := newTrio(t, 3)
	c.start(1, 2, 3)
	refused := func(what string, want error, opts Options) {
		t.Helper()
		m, err := c.open(opts)
		if err == nil {
			stop(t, m)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	double := c.options(2)
	double.DataDir, double.PeerAddr, double.ClientAddr = t.TempDir(), freeAddr(t), freeAddr(t)
	refused("a second node 2", ErrNodeIDInUse, double)

	moved := double // the same id at another address
	moved.Voters = append(without(c.voters, 2), Voter{ID: 2, PeerAddr: moved.PeerAddr})
	refused("a second node 2 elsewhere", ErrNodeIDInUse, moved)

	demoted := Options{NodeID: 2, Voters: without(c.voters, 2), Logger: slog.New(slog.DiscardHandler)}
	refused("a voter that opens as a client", ErrVoters, demoted)

	stranger := Options{NodeID: 9, Voters: c.voters, ClusterToken: "other", Logger: slog.New(slog.DiscardHandler)}
	refused("a client of another cluster", ErrWrongCluster, stranger)

	// A voter with the data of another cluster.
	alone, err := c.open(Options{NodeID: 3, DataDir: t.TempDir(), PeerAddr: "127.0.0.1:0", ClientAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	dir := alone.opts.DataDir
	stop(t, alone)
	c.stop(3)
	other := c.options(3)
	other.DataDir = dir
	refused("the data of another cluster", ErrWrongCluster, other)

	empty := c.options(3)
	empty.DataDir, empty.ClusterToken = t.TempDir(), "other"
	refused("an empty voter with another token", ErrWrongCluster, empty)
}
