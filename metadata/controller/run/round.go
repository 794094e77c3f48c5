package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
)

// retry is how long the controller waits after the KV failed it or another claimed its place.
const retry = 200 * time.Millisecond

// run does rounds: after each image, after what heartbeats and probes change, and when a session or a balance is due.
func (c *Controller) run(ctx context.Context) {
	leadership, leading := c.opts.Leadership, false
	for ctx.Err() == nil {
		var due time.Time
		if leading {
			var err error
			if due, err = c.round(ctx); err != nil && ctx.Err() == nil {
				c.opts.Logger.Warn("controller round failed", slog.Any("error", err))
				due = c.opts.Clock.Now().Add(retry)
			}
		} else {
			c.resign()
		}
		timer, stop := c.timer(due)
		select {
		case <-ctx.Done():
		case v, ok := <-leadership:
			if leading = v && ok; !ok {
				leadership = nil
			}
		case <-c.wake:
		case <-timer:
		}
		stop()
	}
}

func (c *Controller) timer(due time.Time) (fired <-chan time.Time, stop func()) {
	if due.IsZero() {
		return nil, func() {}
	}
	t := c.opts.Clock.NewTimer(max(0, due.Sub(c.opts.Clock.Now())))
	return t.C, func() { t.Stop() }
}

func (c *Controller) resign() {
	if c.epoch != 0 {
		c.metrics.planned(context.Background(), controller.HotPlan{})
	}
	c.epoch, c.settled = 0, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.tracker, c.mu.look = nil, nil
}

// round does all that can be done now, and returns when something is due next.
func (c *Controller) round(ctx context.Context) (due time.Time, err error) {
	if err := c.reign(ctx); err != nil {
		return time.Time{}, err
	}
	decision := c.decide()
	for _, r := range decision.Probe {
		c.probe(r)
	}
	defer func() {
		if errors.Is(err, kerr.NotController) {
			c.resign() // the next round claims again if this broker is still to be the controller
		}
	}()
	for _, r := range decision.Fence {
		c.opts.Logger.Info("fencing a broker", slog.Int("broker", int(r.ID)), slog.Int64("epoch", r.Epoch))
		if err := c.opts.Store.FenceBroker(ctx, c.epoch, r.ID, r.Epoch); gone(err) != nil {
			return time.Time{}, err
		}
	}
	if len(decision.Fence) > 0 {
		c.sweep()
	}
	for _, r := range decision.Room {
		c.opts.Logger.Info("a broker's disk", slog.Int("broker", int(r.ID)), slog.Bool("full", r.Full))
		if err := c.opts.Store.SetFull(ctx, c.epoch, r.ID, r.Epoch, r.Full); gone(err) != nil {
			return time.Time{}, err
		}
	}
	if err := c.settle(ctx); err != nil {
		return time.Time{}, err
	}
	if err := c.unfence(ctx, decision.Unfence); err != nil {
		return time.Time{}, err
	}
	if err := c.rebalance(ctx); err != nil {
		return time.Time{}, err
	}
	if err := c.balanceHot(ctx); err != nil {
		return time.Time{}, err
	}
	due = decision.Again
	if !c.balance.IsZero() && (due.IsZero() || c.balance.Before(due)) {
		due = c.balance
	}
	return due, nil
}

// gone is err, but nil where the registration has gone that something was to be done about.
func gone(err error) error {
	if errors.Is(err, kerr.StaleBrokerEpoch) || errors.Is(err, kerr.BrokerIDNotRegistered) {
		return nil
	}
	return err
}

// reign claims the controller key where this broker does not hold it.
func (c *Controller) reign(ctx context.Context) error {
	image := c.opts.Store.Image()
	if c.epoch != 0 && image.Revision() >= c.epoch && image.ControllerEpoch() != c.epoch {
		c.resign()
		return fmt.Errorf("broker %d claimed the controller: %w", image.Controller(), kerr.NotController)
	}
	if c.epoch != 0 {
		return nil
	}
	epoch, err := c.opts.Store.ClaimController(ctx)
	if err != nil {
		return err
	}
	c.opts.Logger.Info("this broker is the controller", slog.Int64("epoch", epoch))
	c.epoch, c.settled = epoch, nil
	c.balance = time.Time{}
	if c.opts.BalanceEvery > 0 {
		c.balance = c.opts.Clock.Now().Add(c.opts.BalanceEvery)
	}
	c.hot, c.hotDue = controller.HotBalance{}, c.opts.Clock.Now().Add(hotInterval(image.Broker()))
	c.mu.Lock()
	c.mu.tracker = controller.NewTracker(c.opts.SessionTimeout)
	c.mu.Unlock()
	c.sweep()
	return nil
}

func (c *Controller) decide() controller.Decision {
	image, now := c.opts.Store.Image(), c.opts.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.tracker.Sync(registrations(image), now)
	return c.mu.tracker.Decide(now)
}

func (c *Controller) cluster(image *metadata.Image) controller.Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	return image.Cluster(c.mu.tracker.Leaving)
}

// probe looks after a broker in the background.
func (c *Controller) probe(r controller.Registration) {
	b, ok := c.opts.Store.Image().BrokerByID(r.ID)
	if !ok || c.opts.Probe == nil {
		return
	}
	c.mu.Lock()
	_, running := c.mu.probing[r.ID]
	c.mu.probing[r.ID] = struct{}{}
	c.mu.Unlock()
	if running {
		return
	}
	c.group.Go(func(ctx context.Context) {
		result := c.opts.Probe(ctx, b)
		c.mu.Lock()
		delete(c.mu.probing, r.ID)
		if c.mu.tracker != nil {
			c.mu.tracker.Probed(r.ID, r.Epoch, result)
		}
		c.mu.Unlock()
		c.signal()
	})
}

// sweep finishes in the background what dead brokers left of changes of topics. It waits for changes of this broker that are
// under way, which elections must not.
func (c *Controller) sweep() {
	c.mu.Lock()
	running := c.mu.sweeping
	c.mu.sweeping = true
	c.mu.Unlock()
	if running {
		return
	}
	c.group.Go(func(ctx context.Context) {
		if err := c.opts.Store.FinishAbandoned(ctx); err != nil && ctx.Err() == nil {
			c.opts.Logger.Warn("unfinished changes of topics", slog.Any("error", err))
		}
		c.mu.Lock()
		c.mu.sweeping = false
		c.mu.Unlock()
	})
}

// settle brings partitions into the state that follows from who is alive: all of them after a broker changed, else those of
// topics that changed since the last pass. What another writer got ahead of comes back with the image that shows it.
func (c *Controller) settle(ctx context.Context) error {
	image := c.opts.Store.Image()
	cluster := c.cluster(image)
	var changes []metadata.PartitionChange
	look := func(p *metadata.Partition) {
		if next, changed := controller.Next(p.State(), cluster, image.Rules(p)); changed {
			changes = append(changes, metadata.PartitionChange{Partition: *p, Next: next, Seen: image})
		}
	}
	if c.settled == nil || !maps.Equal(cluster, c.statuses) {
		for p := range image.AllPartitions() {
			look(p)
		}
	} else {
		for _, t := range metadata.DeltaOf(c.settled, image).Changed {
			for n := range t.Partitions {
				look(&t.Partitions[n])
			}
		}
	}
	c.settled = nil // an error leaves all to be looked at again
	if err := c.apply(ctx, changes); err != nil {
		return err
	}
	c.settled, c.statuses = image, cluster
	return nil
}

func (c *Controller) apply(ctx context.Context, changes []metadata.PartitionChange) error {
	if len(changes) == 0 {
		return nil
	}
	_, err := c.opts.Store.ApplyPartitionChanges(ctx, c.epoch, changes)
	return err
}

// unfence lets brokers serve that are heard and of which nothing old is left. The image that shows it starts the next round.
func (c *Controller) unfence(ctx context.Context, heard []controller.Registration) error {
	for _, r := range heard {
		err := c.opts.Store.UnfenceBroker(ctx, c.epoch, r.ID, r.Epoch)
		switch {
		case err == nil:
			c.opts.Logger.Info("a broker serves", slog.Int("broker", int(r.ID)), slog.Int64("epoch", r.Epoch))
		case errors.Is(err, kerr.IneligibleReplica), errors.Is(err, kerr.StaleBrokerEpoch), errors.Is(err, kerr.BrokerIDNotRegistered):
		default:
			return err
		}
	}
	return nil
}

// rebalance restores preferred leaders and starts reassignments, when it is due.
func (c *Controller) rebalance(ctx context.Context) error {
	now := c.opts.Clock.Now()
	if c.balance.IsZero() || now.Before(c.balance) {
		return nil
	}
	c.balance = now.Add(c.opts.BalanceEvery)
	image := c.opts.Store.Image()
	cluster := c.cluster(image)
	if image == c.balanced {
		return nil // nothing came of it then
	}
	v := viewOf(image)
	var changes []metadata.PartitionChange
	plan := func(i int, next controller.State, err error) {
		if err == nil && next.PartitionEpoch != v.states[i].PartitionEpoch {
			changes = append(changes, metadata.PartitionChange{Partition: *v.partitions[i], Next: next, Seen: image})
		}
	}
	if leaders := controller.PlanLeaders(v.states, cluster, c.opts.LeaderMoves); len(leaders) > 0 {
		for _, i := range leaders {
			next, err := controller.ElectPreferred(v.states[i], cluster)
			plan(i, next, err)
		}
		return c.apply(ctx, changes) // moves of replicas wait until leaders are where they should be
	}
	for _, move := range controller.PlanMoves(v.states, v.factors, candidates(image), cluster, c.opts.ReplicaMoves, image.Broker().BalanceReplicas) {
		next, err := controller.Reassign(v.states[move.Index], move.Target, cluster, image.Rules(v.partitions[move.Index]))
		plan(move.Index, next, err)
	}
	if len(changes) == 0 {
		c.balanced = image
	}
	return c.apply(ctx, changes)
}

// view is all partitions of an image in one order.
type view struct {
	partitions []*metadata.Partition
	states     []controller.State
	factors    []int // that internal topics should have, 0 for others
}

func viewOf(image *metadata.Image) (v view) {
	for _, t := range image.Topics() {
		factor := image.InternalFactor(t.Name)
		for n := range t.Partitions {
			v.partitions = append(v.partitions, &t.Partitions[n])
			v.states = append(v.states, t.Partitions[n].State())
			v.factors = append(v.factors, factor)
		}
	}
	return v
}

func candidates(image *metadata.Image) []controller.Broker {
	var out []controller.Broker
	for _, b := range image.AllBrokers() {
		candidate := controller.Broker{ID: b.ID}
		if b.Rack != nil {
			candidate.Rack = *b.Rack
		}
		out = append(out, candidate)
	}
	return out
}
