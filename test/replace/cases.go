package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/varvelog/varve/cmd/varve/load"
	"github.com/varvelog/varve/internal/testutil/proc"
)

const (
	loadBytes = 1024 // a record of the load
	calm      = 3 * time.Second
	// near is how much of its share a broker must lead: the balance leaves a tenth alone.
	near = 0.85
	// overhead is what a record of the load takes more in a batch of its own, and that it may be sent twice: to a replica that was
	// let go of when its partition moved on.
	overhead = 2.5
)

// play writes the stock, plays the cases under load, and checks all records.
func (r *run) play(ctx context.Context) error {
	if err := r.stock(ctx); err != nil {
		return err
	}
	only := strings.Split(r.only, ",")
	if slices.Contains(only, "disks") {
		if err := r.underLoad(ctx, r.disks); err != nil {
			return fmt.Errorf("disks: %w", err)
		}
	}
	if slices.Contains(only, "join") {
		if err := r.underLoad(ctx, r.join); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if !r.verify {
		return nil
	}
	return r.check(ctx)
}

// underLoad runs a case while a producer goes on.
func (r *run) underLoad(ctx context.Context, do func(context.Context) error) error {
	loaded, stop := context.WithCancel(ctx)
	defer stop()
	var p load.Produced
	ended := make(chan error, 1)
	o := load.Options{Seeds: r.bootstrap(), Topic: topic, Partitions: int32(r.partitions), SizeBytes: loadBytes, Rate: r.rate, Duration: time.Hour, Seed: r.seed()}
	go func() {
		var err error
		p, err = load.Produce(loaded, o)
		ended <- err
	}()
	err := do(ctx)
	stop()
	err = errors.Join(err, <-ended)
	r.report.LongestMs = max(r.report.LongestMs, p.Latency.MaxMs)
	return errors.Join(err, r.took(p))
}

// disks takes the disks of a broker that is not the controller, then of the controller.
func (r *run) disks(ctx context.Context) error {
	controller, err := r.wheel.AwaitController(ctx)
	if err != nil {
		return err
	}
	if err := r.lose(ctx, "disk lost", controller%voters+1); err != nil {
		return err
	}
	if controller, err = r.wheel.AwaitController(ctx); err != nil {
		return err
	}
	return r.lose(ctx, "controller's disk lost", controller)
}

// lose kills a broker, wipes its disk, and starts it.
func (r *run) lose(ctx context.Context, name string, id int32) error {
	n := r.cluster.Node(id)
	if !wait(ctx, calm) {
		return ctx.Err()
	}
	if err := errors.Join(n.Kill9(), n.Wipe()); err != nil {
		return err
	}
	return r.arrive(ctx, name, n)
}

// join starts the fourth broker.
func (r *run) join(ctx context.Context) error {
	if !wait(ctx, calm) {
		return ctx.Err()
	}
	return r.arrive(ctx, "broker joins", r.cluster.Nodes[voters])
}

// arrive starts a broker that has nothing and measures until it carries its share and the cluster is whole and at rest.
func (r *run) arrive(ctx context.Context, name string, n *proc.Node) error {
	ctx, cancel := context.WithTimeout(ctx, r.settle)
	defer cancel()
	before, err := r.countAll(ctx)
	if err != nil {
		return err
	}
	a := arrival{Case: name, Broker: n.ID, Bytes: map[int32]counters{}}
	for _, c := range before {
		a.Untiered = max(a.Untiered, c.Untiered)
	}
	defer func() { r.report.Arrivals = append(r.report.Arrivals, a) }() // also half of one
	began := time.Now()
	if err := n.Start(); err != nil {
		return err
	}
	if err := n.Ready(ctx); err != nil {
		return err
	}
	a.ReadySeconds = time.Since(began).Seconds()
	if err := r.await(ctx, n, began, &a); err != nil {
		return err
	}
	if err := r.quorum(ctx); err != nil {
		return err
	}
	a.VoterSeconds = time.Since(began).Seconds()
	if !wait(ctx, calm) { // what comes late is counted too
		return ctx.Err()
	}
	after, err := r.countAll(ctx)
	if err != nil {
		return err
	}
	for id, c := range after {
		if id != n.ID { // whose process is new
			c = c.minus(before[id])
		}
		a.Bytes[id] = c
	}
	r.report.Errors = append(r.report.Errors, a.broken(r.within, r.rate*time.Since(began).Seconds())...)
	say("%s: broker %d ready after %.1f s, led something after %.1f s, its share after %.1f s, all in sync after %.1f s", name, n.ID, a.ReadySeconds, a.LeadsSeconds, a.ShareSeconds, a.WholeSeconds)
	return nil
}

// await fills in when the broker led its first partition and its share, and when every replica was in sync with that.
func (r *run) await(ctx context.Context, n *proc.Node, began time.Time, a *arrival) error {
	brokers := 0
	for _, n := range r.cluster.Nodes {
		if n.Running() {
			brokers++
		}
	}
	share := float64(r.partitions) / float64(brokers)
	for {
		led, holds, short, err := r.look(ctx, n.ID)
		if err != nil && ctx.Err() == nil {
			led, short = 0, -1
		}
		took := time.Since(began).Seconds()
		if led > 0 && a.LeadsSeconds == 0 {
			a.LeadsSeconds = took
		}
		if float64(led) >= near*share && a.ShareSeconds == 0 {
			a.ShareSeconds = took
		}
		a.Leads, a.Holds = led, holds
		if a.ShareSeconds > 0 && float64(holds) >= near*share*factor && short == 0 {
			a.WholeSeconds = took
			return nil
		}
		if !n.Running() {
			return fmt.Errorf("broker %d has ended\n%s", n.ID, n.LogTail())
		}
		if !wait(ctx, poll) {
			return errors.Join(fmt.Errorf("broker %d leads %d and holds %d, %d partitions lack replicas in sync: %w", n.ID, led, holds, short, ctx.Err()), err)
		}
	}
}

// look counts the partitions that a broker leads, of which it is a replica in sync, and those that lack one.
func (r *run) look(ctx context.Context, id int32) (led, holds, short int, err error) {
	details, err := r.wheel.Admin().ListTopics(ctx, topic)
	if err == nil {
		err = details.Error()
	}
	for _, p := range details[topic].Partitions {
		if p.Leader == id {
			led++
		}
		if slices.Contains(p.ISR, id) {
			holds++
		}
		if p.Err != nil || len(p.ISR) != factor || len(p.Replicas) != factor {
			short++
		}
	}
	return led, holds, short, err
}
