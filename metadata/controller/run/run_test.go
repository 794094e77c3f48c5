package run_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/controller/run"
	"github.com/varvelog/varve/metadata/memkv"
)

// node is a broker as far as the controller sees it: a store, a controller of its own, heartbeats, and ISR proposals.
type node struct {
	id         base.BrokerID
	disk       int
	store      *metadata.Store
	controller *run.Controller
	leadership chan bool
	group      *service.Group
	epoch      int64
	leaving    bool
	full       atomic.Bool // its disk
}

// cluster is several nodes over one KV.
type cluster struct {
	t  *testing.T
	kv *memkv.KV
	mu struct {
		sync.Mutex
		up   map[base.BrokerID]*node
		cut  map[base.BrokerID]bool // neither heartbeats nor answers probes
		raft base.BrokerID          // who is etcd's leader
	}
	disks map[base.BrokerID]int
	slow  *rand.Rand // not nil: everything that goes to the KV or comes from it takes a while
	hot   func(ctx context.Context, b metadata.Broker) (run.HotSizes, error)
	audit *audit
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, kv: memkv.New(memkv.Options{}), disks: map[base.BrokerID]int{}}
	c.mu.up, c.mu.cut = map[base.BrokerID]*node{}, map[base.BrokerID]bool{}
	c.audit = newAudit(t, c.kv)
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes() {
		c.stop(n.id)
	}
	c.kv.Close()
	c.audit.group.Stop()
}

func (c *cluster) nodes() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*node
	for id := base.BrokerID(1); id < 10; id++ {
		if n := c.mu.up[id]; n != nil {
			out = append(out, n)
		}
	}
	return out
}

func (c *cluster) node(id base.BrokerID) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.up[id]
}

func (c *cluster) start(id base.BrokerID) *node {
	store, err := metadata.Open(context.Background(), metadata.Options{
		KV: c.seam(), BrokerID: id, Logger: slog.New(slog.DiscardHandler), Static: map[string]string{"min.insync.replicas": "2"},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{id: id, store: store, leadership: make(chan bool, 8), group: service.NewGroup(context.Background())}
	n.epoch, err = store.RegisterBroker(context.Background(), metadata.Broker{ID: id, Host: "h", Port: 1, Disk: fmt.Sprintf("disk-%d-%d", id, c.disks[id])})
	if err != nil {
		c.t.Fatal(err)
	}
	n.controller, err = run.New(run.Options{
		Store: store, Leadership: n.leadership, SessionTimeout: 3 * time.Second, BalanceEvery: time.Second,
		Logger: slog.New(slog.DiscardHandler), Probe: c.probe, HotBytes: c.hot,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.mu.up[id] = n
	n.leadership <- c.mu.raft == id
	c.mu.Unlock()
	n.group.Go(func(ctx context.Context) { c.live(ctx, n) })
	n.group.Go(func(ctx context.Context) { c.lead(ctx, n) })
	return n
}

// slowKV delays writes on their way there and back, and what a watch brings; a write that is under way is not stopped by the
// death of its writer.
type slowKV struct {
	*memkv.KV
	mu struct {
		sync.Mutex
		r *rand.Rand
	}
	group *service.Group
}

func (c *cluster) seam() metadata.KV {
	if c.slow == nil {
		return c.kv
	}
	k := &slowKV{KV: c.kv, group: c.audit.group}
	k.mu.r = rand.New(rand.NewPCG(c.slow.Uint64(), 1))
	return k
}

func (k *slowKV) wait(most int) {
	k.mu.Lock()
	d := time.Duration(k.mu.r.IntN(most)) * time.Millisecond
	k.mu.Unlock()
	time.Sleep(d) // of the bubble
}

func (k *slowKV) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (metadata.TxnResult, error) {
	k.wait(30)
	res, err := k.KV.Txn(context.WithoutCancel(ctx), cmps, ops)
	k.wait(30)
	return res, err
}

func (k *slowKV) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	in, out := k.KV.Watch(ctx, prefix, from), make(chan metadata.Events)
	k.group.Go(func(context.Context) {
		defer close(out)
		for batch := range in {
			k.wait(300)
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
		}
	})
	return out
}

// stop ends a broker as kill -9 does for the others: its connection breaks, its port refuses.
func (c *cluster) stop(id base.BrokerID) {
	c.mu.Lock()
	n := c.mu.up[id]
	delete(c.mu.up, id)
	raft := c.mu.up[c.mu.raft]
	c.mu.Unlock()
	n.group.Stop()
	n.controller.Close()
	if err := n.store.Close(); err != nil {
		c.t.Error(err)
	}
	if raft != nil {
		raft.controller.Disconnected(id, n.epoch)
	}
}

func (c *cluster) probe(_ context.Context, b metadata.Broker) controller.ProbeResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.cut[b.ID]:
		return controller.ProbeNoAnswer
	case c.mu.up[b.ID] != nil:
		return controller.ProbeAccepted
	default:
		return controller.ProbeRefused
	}
}

// startThree starts brokers 1 to 3, of which 1 becomes the controller.
func (c *cluster) startThree() {
	for id := base.BrokerID(1); id <= 3; id++ {
		c.start(id)
	}
	c.elect(1)
	c.settle()
}

// elect makes a broker etcd's leader.
func (c *cluster) elect(id base.BrokerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.raft = id
	for _, n := range c.mu.up {
		n.leadership <- n.id == id
	}
}

// lead lets the partitions that the broker leads have every broker that is up in their ISR.
func (c *cluster) lead(ctx context.Context, n *node) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.propose(ctx, n)
		}
	}
}

// live sends heartbeats.
func (c *cluster) live(ctx context.Context, n *node) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		raft, cut := c.mu.up[c.mu.raft], c.mu.cut[n.id]
		c.mu.Unlock()
		if cut {
			continue
		}
		if raft != nil {
			_, _ = raft.controller.Heartbeat(controller.Heartbeat{ID: n.id, Epoch: n.epoch, Leaving: n.leaving, Full: n.full.Load()}) // a controller that is not ready is asked again
		}
	}
}

func (c *cluster) propose(ctx context.Context, n *node) {
	image := n.store.Image()
	if me, ok := image.BrokerByID(n.id); !ok || me.Fenced || me.Epoch != n.epoch {
		return
	}
	for p := range image.AllPartitions() {
		if p.Leader != n.id {
			continue
		}
		proposal := metadata.ISRProposal{TopicID: p.TopicID, Partition: p.TP.Partition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
		for _, id := range p.Replicas {
			if other := c.node(id); slices.Contains(p.ISR, id) || other != nil && !other.full.Load() {
				member := metadata.ISRMember{ID: id}
				if other != nil {
					member.Epoch = other.epoch
				}
				proposal.ISR = append(proposal.ISR, member)
			}
		}
		if len(proposal.ISR) > len(p.ISR) {
			_, _ = n.store.ProposeISR(ctx, proposal) // refused while a broker is fenced
		}
	}
}

// unsettled reports what is missing until every partition has its preferred leader and all replicas in sync.
func (c *cluster) unsettled() string {
	for _, n := range c.nodes() {
		image := n.store.Image()
		if up := len(c.nodes()); len(image.Brokers()) != up {
			why := ""
			for _, b := range image.AllBrokers() {
				if p := image.Unready(b); p != nil {
					why += fmt.Sprintf("; %d waits for %+v", b.ID, *p)
				}
			}
			return fmt.Sprintf("broker %d at %d sees %v of %d serve, controller %d%s", n.id, image.Revision(), image.AllBrokers(), up, image.Controller(), why)
		}
		for p := range image.AllPartitions() {
			if p.Leader != p.Replicas[0] || len(p.ISR) != len(p.Replicas) || len(p.ELR) > 0 || len(p.Adding)+len(p.Removing) > 0 {
				return fmt.Sprintf("broker %d sees %+v", n.id, *p)
			}
		}
	}
	return ""
}

func (c *cluster) settle() {
	c.t.Helper()
	why := ""
	for range 600 {
		time.Sleep(100 * time.Millisecond) // of the bubble
		synctest.Wait()
		if why = c.unsettled(); why == "" {
			return
		}
	}
	c.t.Fatalf("after a minute: %s", why)
}

func (c *cluster) create(by base.BrokerID, name string, partitions int32, replicas int16) {
	c.t.Helper()
	_, err := c.node(by).store.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: replicas}, false)
	if err != nil {
		c.t.Fatal(err)
	}
}

// audit checks every revision of the KV, not only those that some image shows.
type audit struct {
	t          *testing.T
	group      *service.Group
	partitions map[string]partition
	leaders    map[string]map[base.LeaderEpoch]base.BrokerID
	brokers    map[base.BrokerID]broker
	elections  int
}

type partition struct {
	ISR, ELR, Replicas []base.BrokerID
	Leader             base.BrokerID
	LeaderEpoch        base.LeaderEpoch
	PartitionEpoch     int32
	rev, created       int64
}

type broker struct {
	Epoch         int64
	Fenced, Wiped bool
	Disk          string
	served        string // the disk with which it served last
	registered    int64  // revision of the registration
}

func newAudit(t *testing.T, kv *memkv.KV) *audit {
	a := &audit{
		t: t, group: service.NewGroup(context.Background()),
		partitions: map[string]partition{}, leaders: map[string]map[base.LeaderEpoch]base.BrokerID{}, brokers: map[base.BrokerID]broker{},
	}
	events := kv.Watch(context.Background(), "/varve/image/", 1)
	a.group.Go(func(context.Context) {
		for batch := range events {
			for _, e := range batch.Events {
				a.event(e)
			}
		}
	})
	return a
}

func (a *audit) event(e metadata.Event) {
	key := strings.TrimPrefix(e.KV.Key, "/varve/image/")
	switch {
	case e.Deleted:
		delete(a.partitions, key)
	case strings.HasPrefix(key, "partition/"):
		p := partition{rev: e.KV.ModRevision, created: e.KV.CreateRevision}
		if err := json.Unmarshal(e.KV.Value, &p); err != nil {
			a.t.Error(err)
		}
		a.partition(key, p)
	case strings.HasPrefix(key, "broker/"):
		var b broker
		if err := json.Unmarshal(e.KV.Value, &b); err != nil {
			a.t.Error(err)
		}
		id, _ := strconv.Atoi(strings.TrimPrefix(key, "broker/"))
		a.broker(base.BrokerID(id), b, e.KV.ModRevision)
	}
}

func (a *audit) partition(key string, p partition) {
	old, had := a.partitions[key]
	a.partitions[key] = p
	if a.leaders[key] == nil {
		a.leaders[key] = map[base.LeaderEpoch]base.BrokerID{}
	}
	switch {
	case had && (p.PartitionEpoch != old.PartitionEpoch+1 || p.LeaderEpoch < old.LeaderEpoch):
		a.t.Errorf("%s: epochs of %+v after %+v", key, p, old)
	case had && p.Leader != old.Leader && p.LeaderEpoch == old.LeaderEpoch:
		a.t.Errorf("%s: two leaders: %+v after %+v", key, p, old)
	case len(p.ISR) == 0 && slices.ContainsFunc(old.ISR, func(id base.BrokerID) bool { return !a.brokers[id].Wiped }):
		a.t.Errorf("%s: empty ISR: %+v after %+v", key, p, old)
	case p.Leader >= 0 && !slices.Contains(p.ISR, p.Leader):
		a.t.Errorf("%s: leader outside of its ISR: %+v", key, p)
	case had && p.LeaderEpoch != old.LeaderEpoch && p.Leader >= 0 && a.brokers[p.Leader].Fenced:
		a.t.Errorf("%s: a fenced leader: %+v", key, p)
	}
	for _, id := range p.ISR {
		if had && !slices.Contains(old.ISR, id) && a.brokers[id].Fenced {
			a.t.Errorf("%s: fenced broker %d joins the ISR: %+v", key, id, p)
		}
	}
	if p.Leader >= 0 {
		if l, ok := a.leaders[key][p.LeaderEpoch]; ok && l != p.Leader {
			a.t.Errorf("%s: %d and %d lead in epoch %d", key, l, p.Leader, p.LeaderEpoch)
		}
		a.leaders[key][p.LeaderEpoch] = p.Leader
		a.elections++
	}
}

func (a *audit) broker(id base.BrokerID, b broker, rev int64) {
	old, had := a.brokers[id]
	b.registered, b.served = old.registered, old.served
	if !b.Fenced {
		b.served = b.Disk
	}
	if b.Epoch != old.Epoch {
		b.registered = rev
		if had && b.Epoch < old.Epoch {
			a.t.Errorf("broker %d: epoch %d after %d", id, b.Epoch, old.Epoch)
		}
	}
	a.brokers[id] = b
	if !had || b.Fenced || !old.Fenced {
		return
	}
	for key, p := range a.partitions {
		if p.Leader == id && p.rev < b.registered {
			a.t.Errorf("broker %d serves and leads %s from before its registration: %+v", id, key, p)
		}
		if old.served != b.Disk && (slices.Contains(p.ISR, id) || slices.Contains(p.ELR, id)) && p.created < b.registered {
			a.t.Errorf("broker %d serves with another disk and is counted on: %s %+v", id, key, p)
		}
	}
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.startThree()
		c.create(2, "t", 30, 3)
		c.settle()
		before := time.Now()
		c.stop(2)
		synctest.Wait() // the probe is refused: no time passes
		image := c.node(3).store.Image()
		for p := range image.AllPartitions() {
			if p.Leader == 2 || p.Leader < 0 || slices.Contains(p.ISR, 2) {
				t.Errorf("after the death of 2: %+v", *p)
			}
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("took %v", took)
		}
		c.stop(1) // the controller itself: two of three are gone
		c.elect(3)
		synctest.Wait()
		for p := range c.node(3).store.Image().AllPartitions() {
			if p.Leader != 3 || len(p.ISR) != 1 || len(p.ELR) == 0 {
				t.Errorf("alone: %+v", *p)
			}
		}
		c.start(1)
		c.disks[2]++
		c.start(2)
		c.settle()
		leads := map[base.BrokerID]int{}
		for p := range c.node(1).store.Image().AllPartitions() {
			leads[p.Leader]++
		}
		if leads[1] != 10 || leads[2] != 10 || leads[3] != 10 {
			t.Errorf("leaders: %v", leads)
		}
	})
}

func TestFourthBrokerAndDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.startThree()
		c.create(1, "t", 120, 3)
		c.start(4)
		time.Sleep(30 * time.Second) // of the bubble
		c.settle()
		leads := func() map[base.BrokerID]int {
			out := map[base.BrokerID]int{}
			for p := range c.node(1).store.Image().AllPartitions() {
				out[p.Leader]++
			}
			return out
		}
		for id, n := range leads() {
			if n < 29 || n > 31 {
				t.Errorf("broker %d leads %d: %v", id, n, leads())
			}
		}
		c.node(2).full.Store(true) // which is why it is drained
		if err := c.node(3).store.SetDraining(context.Background(), 2, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second) // of the bubble
		c.settle()
		for p := range c.node(1).store.Image().AllPartitions() {
			if slices.Contains(p.Replicas, 2) || len(p.ISR) != 3 {
				t.Errorf("after the drain of 2: %+v", *p)
			}
		}
	})
}

// TestControlledShutdown moves leaders before a broker stops.
func TestControlledShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.startThree()
		c.create(1, "t", 12, 3)
		c.settle()
		n := c.node(2)
		answer, err := c.node(1).controller.Heartbeat(controller.Heartbeat{ID: 2, Epoch: n.epoch, Leaving: true})
		if err != nil || answer.MayStop {
			t.Fatalf("at once: %+v %v", answer, err)
		}
		synctest.Wait()
		answer, err = c.node(1).controller.Heartbeat(controller.Heartbeat{ID: 2, Epoch: n.epoch, Leaving: true})
		if err != nil || !answer.MayStop || answer.Fenced {
			t.Fatalf("then: %+v %v", answer, err)
		}
		for p := range c.node(1).store.Image().AllPartitions() {
			if p.Leader == 2 || slices.Contains(p.ISR, 2) || len(p.ISR) != 2 {
				t.Errorf("%+v", *p)
			}
		}
		if _, err := c.node(3).controller.Heartbeat(controller.Heartbeat{ID: 2, Epoch: n.epoch, Leaving: true}); err == nil {
			t.Error("a broker that is not the controller took a heartbeat")
		}
	})
}

// A broker whose disk is full leads nothing and leaves the ISRs, under a new controller too, until there is room.
func TestFullBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.startThree()
		c.create(1, "t", 12, 3)
		c.settle()
		c.node(2).full.Store(true)
		for _, controller := range []base.BrokerID{1, 3} {
			c.elect(controller)
			time.Sleep(5 * time.Second) // of the bubble: some looks at the balance that find nothing
			synctest.Wait()
			for p := range c.node(1).store.Image().AllPartitions() {
				if p.Leader == 2 || slices.Contains(p.ISR, 2) || len(p.ISR) < 2 {
					t.Errorf("full: %+v", *p)
				}
			}
		}
		c.node(2).full.Store(false)
		c.settle()
	})
}

// TestChaos kills, wipes, cuts off and restarts brokers and moves etcd's leader, and checks every revision.
func TestChaos(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			defer c.close()
			r := rand.New(rand.NewPCG(seed, 3))
			if seed%4 > 0 {
				c.slow = rand.New(rand.NewPCG(seed, 4))
			}
			for id := base.BrokerID(1); id <= 4; id++ {
				c.start(id)
			}
			c.elect(1)
			c.settle()
			c.create(1, "t", 20, 3)
			c.settle()
			for range 40 {
				c.disturb(r)
				time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond) // of the bubble
			}
			for id := base.BrokerID(1); id <= 4; id++ {
				c.heal(id)
			}
			c.settle()
			if c.audit.elections < 100 {
				t.Errorf("%d elections only", c.audit.elections)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// expendable reports whether each partition has a replica besides that of a broker which holds what was committed.
func (c *cluster) expendable(id base.BrokerID) bool {
	time.Sleep(2 * time.Second) // of the bubble: what is under way arrives
	image := c.nodes()[0].store.Image()
	for p := range image.AllPartitions() {
		if !slices.ContainsFunc(slices.Concat(p.ISR, p.ELR), func(other base.BrokerID) bool {
			b, _ := image.BrokerByID(other)
			return other != id && !b.Wiped
		}) {
			return false
		}
	}
	return true
}

func (c *cluster) disturb(r *rand.Rand) {
	id := base.BrokerID(1 + r.IntN(4))
	up := c.node(id) != nil
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	switch op := r.IntN(13); {
	case op < 3 && up && len(c.nodes()) > 2:
		c.stop(id)
	case op < 6 && !up:
		if r.IntN(2) == 0 && c.expendable(id) {
			c.disks[id]++
		}
		c.start(id)
	case op == 6 && up: // restarts faster than anybody sees
		c.stop(id)
		c.start(id)
	case op == 7:
		c.mu.Lock()
		c.mu.cut[id] = !c.mu.cut[id]
		c.mu.Unlock()
	case op == 8 || op == 9:
		c.elect(id)
	case op == 10 && up: // refused where too few brokers are known
		_, _ = c.node(id).store.CreateTopic(ctx, metadata.TopicSpec{Name: fmt.Sprint("t", r.IntN(1000)), Partitions: 1 + r.Int32N(8), ReplicationFactor: 3}, false)
	case op == 11 && up:
		target := []base.BrokerID{id, id%4 + 1, (id+1)%4 + 1}
		_ = c.node(id).store.Reassign(ctx, base.TopicPartition{Topic: "t", Partition: r.Int32N(20)}, target)
	case op == 12 && up:
		_ = c.node(id).store.ElectLeader(ctx, base.TopicPartition{Topic: "t", Partition: r.Int32N(20)}, false)
	}
}

func (c *cluster) heal(id base.BrokerID) {
	if c.node(id) == nil {
		c.start(id)
	}
	c.mu.Lock()
	delete(c.mu.cut, id)
	c.mu.Unlock()
	if id == 4 {
		c.elect(1)
	}
}
