package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/service"
)

// settleTime is how long a healed cluster is left alone before its bucket is looked at: longer than the grace of its garbage and
// the scrub's period.
const settleTime = 75 * time.Second

// planOf is what a seed stands for.
func planOf(seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 0x706c616e))
	between := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least)) * time.Millisecond
	}
	return plan{
		brokers: 3 + 2*rng.IntN(2), partitions: 1 + rng.IntN(4), syncEvery: []time.Duration{0, between(1, 5), between(5, 40)}[rng.IntN(3)],
		latency: time.Duration(rng.IntN(2000)) * time.Microsecond, faults: between(30_000, 90_000), tierAfter: between(300, []int{1_000, 5_000}[rng.IntN(2)]),
		producers: 1 + rng.IntN(4), appendTime: rng.IntN(4) == 0,
	}
}

// Report is what became of a run.
type Report struct {
	Seed      uint64
	Plan      string
	Anomalies []string
	Simulated time.Duration
	Acked     int
	Silence   time.Duration // the longest time that a partition acknowledged nothing
	Counts    map[string]int
}

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d (%s): %v simulated, %d records acknowledged, longest silence %v", r.Seed, r.Plan, r.Simulated.Round(time.Second), r.Acked, r.Silence.Round(time.Millisecond))
	for _, what := range sortedKeys(r.Counts) {
		fmt.Fprintf(&b, ", %s %d", what, r.Counts[what])
	}
	return b.String()
}

// Run plays one seed, in a bubble. dir is for lock files.
func Run(seed uint64, dir string, log *slog.Logger) (*Report, error) {
	begin := time.Now()
	c, err := newCluster(seed, planOf(seed), dir, log)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	along := c.newReader("reader")
	if err := c.createTopic(ctx); err != nil {
		c.fail(err)
	} else {
		c.play(ctx, along)
	}
	var final *reader
	if c.ledger.count() > 0 {
		final = c.checkServed(ctx, along)
		c.checkTimes(ctx, final)
		c.checkRegisters(ctx)
		pause(ctx, settleTime)
		if what := c.outOfSync(); what != "" {
			c.failf("the cluster was left alone, and is out of sync: %s", what)
		}
	}
	partitions, err := c.partitions()
	if err != nil {
		c.fail(err)
	}
	c.stop(ctx)
	if final != nil {
		c.checkDisks(partitions)
		c.checkBucket(ctx, final)
	}
	c.quorum.stop()
	return &Report{
		Seed: seed, Plan: fmt.Sprintf("%+v", c.plan), Anomalies: c.anomalies, Simulated: time.Since(begin), Acked: c.ledger.count(),
		Silence: c.ledger.gap, Counts: c.counts,
	}, nil
}

func (c *cluster) createTopic(ctx context.Context) error {
	cl, err := kgo.NewClient(c.client()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	kind := "CreateTime"
	if c.plan.appendTime {
		kind = "LogAppendTime"
	}
	for range 60 {
		trying, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err = adm.CreateTopic(trying, int32(c.plan.partitions), 3, map[string]*string{"message.timestamp.type": &kind}, topic)
		cancel()
		if err == nil && await(ctx, time.Minute, c.inSync) {
			return nil
		}
		pause(ctx, time.Second)
	}
	return fmt.Errorf("create the topic: %w", err)
}

// play runs the workload with the faults, and then heals the cluster and lets the workload come to its end.
func (c *cluster) play(ctx context.Context, along *reader) {
	harm, stopHarm := context.WithTimeout(ctx, c.plan.faults)
	defer stopHarm()
	producing, stopProducing := context.WithCancel(ctx)
	defer stopProducing()
	deadline, giveUp := context.WithTimeout(ctx, c.plan.faults+5*time.Minute)
	defer giveUp()
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()

	producers, readers := service.NewGroup(ctx), service.NewGroup(ctx)
	for id := range c.plan.producers {
		producers.Go(func(context.Context) { c.produce(producing, deadline, uint32(id), c.seed) })
	}
	readers.Go(func(context.Context) { along.follow(reading) })
	members := &consumers{c: c, acked: make([]int64, c.plan.partitions)}
	for n := range uint64(2) {
		readers.Go(func(context.Context) { members.member(reading, rand.New(rand.NewPCG(c.seed, 100+n))) })
	}
	for n := range uint64(4) {
		readers.Go(func(context.Context) {
			c.keepRegister(reading, fmt.Sprintf("register-%d", n), rand.New(rand.NewPCG(c.seed, 200+n)))
		})
	}
	readers.Go(func(context.Context) { c.auditEnds(reading, rand.New(rand.NewPCG(c.seed, 300))) })
	a := &adversary{c: c, seed: c.seed}
	a.run(harm)
	<-harm.Done()
	c.heal()
	if !await(ctx, 3*time.Minute, c.inSync) {
		c.failf("the cluster is healed and does not get in sync: %s", c.outOfSync())
	}
	pause(ctx, 5*time.Second)
	stopProducing()
	producers.Stop()
	pause(ctx, time.Second)
	stopReading()
	readers.Stop()
}

// heal ends every fault.
func (c *cluster) heal() {
	for _, n := range c.nodes {
		for _, o := range c.others(n) {
			c.net.Cut(n.ip, o, false)
			c.net.Cut(o, n.ip, false)
			c.net.Slow(n.ip, o, 0)
		}
		if p := n.current(); p != nil {
			p.fuse.Store(0)
			p.trap.Store(nil)
			p.goOn()
		}
		n.wallSec.Store(0)
		n.putsMs.Store(0)
		c.quorum.isolate(n.ip, false)
		c.quorum.wire(n.ip, false)
		c.quorum.deafen(n.ip, false)
		n.down(0)
	}
	c.quorum.disturb(0, 0)
	c.store.SetRules()
}

// stop stops the brokers as an operator does, all at once.
func (c *cluster) stop(ctx context.Context) {
	c.work.Stop()
	stopping := service.NewGroup(ctx)
	for _, n := range c.nodes {
		stopping.Go(func(context.Context) {
			if _, err := n.stop(ctx); err != nil {
				c.failf("stop broker %d: %w", n.id, err)
			}
		})
	}
	stopping.Stop()
	c.procs.Stop()
}
