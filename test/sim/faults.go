package sim

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/fault"
)

// adversary does one thing after the other to a cluster, or several at a time: each fault ends by itself.
type adversary struct {
	c    *cluster
	seed uint64
	rng  *rand.Rand // of the step that its loop is at
	adm  *kadm.Client
}

// faults are what it chooses from, by weight.
var faults = []struct {
	name   string
	weight int
	do     func(a *adversary, ctx context.Context)
}{
	{"crash", 10, (*adversary).crash},
	{"power cut", 4, (*adversary).powerCut},
	{"failing sync", 6, (*adversary).failSync},
	{"stop", 5, (*adversary).stop},
	{"pause", 6, (*adversary).pause},
	{"cut", 8, (*adversary).cut},
	{"lonely leader", 5, (*adversary).lonely},
	{"zombie", 5, (*adversary).zombie},
	{"slow link", 4, (*adversary).slow},
	{"no metadata", 5, (*adversary).noMetadata},
	{"metadata trouble", 4, (*adversary).metadataTrouble},
	{"controller moves", 4, (*adversary).moveController},
	{"stopped", 8, (*adversary).stopped},
	{"two leaders", 9, (*adversary).twoLeaders},
	{"slow PUTs", 4, func(a *adversary, ctx context.Context) { a.slowPuts(ctx, a.leader()) }},
	{"wrong clock", 5, (*adversary).wrongClock},
	{"wipe", 4, (*adversary).wipe},
	{"bucket trouble", 5, (*adversary).bucketTrouble},
	{"election", 3, (*adversary).elect},
	{"reassignment", 4, (*adversary).reassign},
}

// run does harm until ctx ends.
func (a *adversary) run(ctx context.Context) {
	cl, err := kgo.NewClient(a.c.client()...)
	if err != nil {
		a.c.fail(err)
		return
	}
	defer cl.Close()
	a.adm = kadm.NewClient(cl)
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	for step := uint64(0); ; step++ {
		a.rng = rand.New(rand.NewPCG(a.seed, step)) // what a step does must not change the steps that follow
		if !pause(ctx, a.between(100*time.Millisecond, 4*time.Second)) {
			return
		}
		at := a.rng.IntN(total)
		for _, f := range faults {
			if at -= f.weight; at < 0 {
				a.c.log.Info("fault", slog.String("name", f.name))
				a.c.count("fault: "+f.name, 1)
				f.do(a, ctx)
				break
			}
		}
	}
}

func (a *adversary) between(least, most time.Duration) time.Duration {
	return least + time.Duration(a.rng.Int64N(int64(most-least)))
}

func (a *adversary) node() *node { return a.c.nodes[a.rng.IntN(len(a.c.nodes))] }

// later undoes a fault after a while, or at the end of all faults.
func (a *adversary) later(ctx context.Context, after time.Duration, undo func()) {
	a.c.work.Go(func(context.Context) {
		pause(ctx, after)
		undo()
	})
}

func (a *adversary) crash(context.Context) {
	n, share := a.node(), a.share()
	n.down(a.between(100*time.Millisecond, 6*time.Second))
	n.kill(n.current(), share, a.rng)
}

// share is how much survives of what was not synced, in percent.
func (a *adversary) share() int { return []int{0, 0, 50, 100}[a.rng.IntN(4)] }

// powerCut ends all processes at once; they come back one after the other.
func (a *adversary) powerCut(context.Context) {
	for _, n := range a.c.nodes {
		n.down(a.between(100*time.Millisecond, 6*time.Second))
	}
	share := a.share()
	for _, n := range a.c.nodes {
		n.kill(n.current(), share, a.rng)
	}
}

func (a *adversary) failSync(context.Context) {
	n := a.node()
	if p := n.current(); p != nil {
		p.fuse.Store(1 + a.rng.Int64N(20))
	}
}

// stop ends a process as SIGTERM does.
func (a *adversary) stop(ctx context.Context) {
	n, down := a.node(), a.between(100*time.Millisecond, 4*time.Second)
	a.c.work.Go(func(context.Context) {
		n.down(time.Minute)
		if _, err := n.stop(context.WithoutCancel(ctx)); err != nil {
			a.c.log.Warn("stop", slog.Int("broker", int(n.id)), slog.Any("err", err))
		}
		n.down(down)
	})
}

// pause cuts a broker off from everything.
func (a *adversary) pause(ctx context.Context) {
	n := a.node()
	for _, o := range a.c.others(n) {
		a.cutBoth(ctx, n.ip, o, a.between(500*time.Millisecond, 8*time.Second))
	}
}

func (a *adversary) cutBoth(ctx context.Context, x, y string, d time.Duration) {
	a.cutOne(ctx, x, y, d)
	a.cutOne(ctx, y, x, d)
}

func (a *adversary) cutOne(ctx context.Context, from, to string, d time.Duration) {
	a.c.split(d)
	a.c.net.Cut(from, to, true)
	a.later(ctx, d, func() { a.c.net.Cut(from, to, false) })
}

// cut cuts one direction, a pair, or a broker from all other brokers but not from the clients.
func (a *adversary) cut(ctx context.Context) {
	n, d := a.node(), a.between(500*time.Millisecond, 10*time.Second)
	others := a.c.others(n)
	o := others[a.rng.IntN(len(others))]
	switch a.rng.IntN(4) {
	case 0:
		a.cutOne(ctx, n.ip, o, d)
	case 1:
		a.cutOne(ctx, o, n.ip, d)
	case 2:
		a.cutBoth(ctx, n.ip, o, d)
	default:
		for _, m := range a.c.nodes {
			if m != n {
				a.cutBoth(ctx, n.ip, m.ip, d)
			}
		}
	}
	if a.rng.IntN(3) == 0 {
		a.later(ctx, d, func() { a.c.net.Reset(n.ip, o) })
	}
}

// lonely cuts a broker from the other brokers' Kafka listeners alone: it has its clients, the metadata and the bucket, and nobody
// who replicates what it leads. Then it dies, and what it alone had must not be anywhere.
func (a *adversary) lonely(ctx context.Context) {
	n, d, share := a.leader(), a.between(500*time.Millisecond, 6*time.Second), a.share()
	dies, down := a.rng.IntN(3) > 0, a.between(time.Second, 10*time.Second)
	p := n.current()
	a.c.split(d)
	a.c.quorum.wire(n.ip, true)
	for _, o := range a.c.nodes {
		if o != n {
			a.c.net.Cut(o.ip, n.ip, true)
			a.later(ctx, d, func() { a.c.net.Cut(o.ip, n.ip, false) })
		}
	}
	rng := rand.New(rand.NewPCG(a.seed, a.rng.Uint64()))
	a.later(ctx, d-time.Millisecond, func() {
		if dies && ctx.Err() == nil {
			n.down(down)
			n.kill(p, share, rng)
		}
		a.c.quorum.wire(n.ip, false)
	})
}

// zombie lets a broker be fenced without hearing of it: it goes on for its clients, etcd and the bucket as what it was, beside
// its successors.
func (a *adversary) zombie(ctx context.Context) {
	n, d := a.leader(), a.between(3*time.Second, 12*time.Second)
	if a.rng.IntN(2) == 0 {
		a.slowPuts(ctx, n)
	}
	a.c.split(d)
	a.c.quorum.wire(n.ip, true)
	a.c.quorum.deafen(n.ip, true)
	for _, o := range a.c.nodes {
		if o != n {
			a.cutBoth(ctx, n.ip, o.ip, d)
		}
	}
	a.later(ctx, d, func() {
		a.c.quorum.deafen(n.ip, false)
		a.c.quorum.wire(n.ip, false)
	})
}

func (a *adversary) slow(ctx context.Context) {
	n := a.node()
	for _, o := range a.c.others(n) {
		a.c.net.Slow(n.ip, o, a.between(time.Millisecond, 400*time.Millisecond))
		a.later(ctx, a.between(time.Second, 6*time.Second), func() { a.c.net.Slow(n.ip, o, 0) })
	}
}

// noMetadata cuts a broker's member and its requests from the other members; Kafka's connections stand.
func (a *adversary) noMetadata(ctx context.Context) {
	n, d := a.node(), a.between(500*time.Millisecond, 8*time.Second)
	a.c.split(d)
	a.c.quorum.isolate(n.ip, true)
	a.later(ctx, d, func() { a.c.quorum.isolate(n.ip, false) })
}

func (a *adversary) metadataTrouble(ctx context.Context) {
	d := a.between(time.Second, 8*time.Second)
	a.c.split(d)
	a.c.quorum.disturb(a.rng.Float64()/2, a.between(0, 100*time.Millisecond))
	a.later(ctx, d, func() { a.c.quorum.disturb(0, 0) })
}

func (a *adversary) moveController(context.Context) { a.c.quorum.move(nil) }

// wipe takes a broker's disk, where all the others have everything.
func (a *adversary) wipe(context.Context) {
	n := a.node()
	if !a.c.inSync() {
		return
	}
	n.down(a.between(100*time.Millisecond, 2*time.Second))
	if n.kill(n.current(), 0, a.rng) {
		a.c.count("wiped", 1)
		n.wipe()
	}
}

// bucketTrouble makes the bucket fail, throttle, lose replies or be down for a while.
func (a *adversary) bucketTrouble(ctx context.Context) {
	seed := a.rng.Uint64()
	some := []fault.Effect{
		{Err: fault.ErrInjected}, {LoseReply: true}, {Err: objstore.ErrThrottled}, {Delay: 2 * time.Second},
	}[a.rng.IntN(4)]
	rule := fault.Randomly(seed, 0.3, some)
	if a.rng.IntN(3) == 0 {
		rule = fault.When(func(fault.Op) bool { return true }, fault.Effect{Err: fault.ErrInjected})
	}
	a.c.store.SetRules(rule)
	a.later(ctx, a.between(time.Second, 10*time.Second), func() { a.c.store.SetRules() })
}

func (a *adversary) elect(ctx context.Context) {
	a.c.work.Go(func(context.Context) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, _ = a.adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil) // whatever comes of it
	})
}

// reassign moves a partition to other brokers, or gives its replicas another order.
func (a *adversary) reassign(ctx context.Context) {
	var to []int32
	for _, n := range a.rng.Perm(len(a.c.nodes)) {
		to = append(to, a.c.nodes[n].id)
	}
	to = slices.Clip(to[:min(3, len(to))])
	var req kadm.AlterPartitionAssignmentsReq
	req.Assign(topic, int32(a.rng.IntN(a.c.plan.partitions)), to)
	a.c.work.Go(func(context.Context) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, _ = a.adm.AlterPartitionAssignments(ctx, req) // whatever comes of it
	})
}
