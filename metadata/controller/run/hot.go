package run

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
)

// hotMoves bounds the moves of a plan: elections wait while it is made, a fifth of a second for so many in 50,000 partitions.
const hotMoves = 100

// HotSizes are the hot bytes of the replicas that a broker has.
type HotSizes map[base.TopicPartition]int64

// look is what the brokers said of their hot bytes.
type look struct {
	at    time.Time // when they began to be asked
	sizes map[base.BrokerID]HotSizes
	err   error
}

// balanceHot moves replicas for their hot bytes where nothing is left to move for their number: it asks the brokers in one round and
// decides in the one that their answers wake. Nothing is written but the reassignments.
func (c *Controller) balanceHot(ctx context.Context) error {
	now, image := c.opts.Clock.Now(), c.opts.Store.Image()
	config := image.Broker()
	if c.opts.HotBytes == nil || !config.BalanceHot || !config.BalanceReplicas || image != c.balanced {
		return nil
	}
	c.mu.Lock()
	asking, taken := c.mu.asking, c.mu.look
	c.mu.look = nil
	c.mu.Unlock()
	switch {
	case asking:
		return nil
	case taken != nil && taken.err != nil:
		c.opts.Logger.Warn("hot bytes are not balanced: a broker did not tell its own", slog.Any("error", taken.err))
		return nil
	case taken != nil && now.Sub(taken.at) < hotInterval(config):
		return c.applyHot(ctx, image, taken.sizes, now)
	case now.Before(c.hotDue):
		return nil
	}
	c.hotDue = now.Add(hotInterval(config))
	if brokers := candidates(image); len(brokers) > 1 && controller.Whole(viewOf(image).states, brokers, c.cluster(image)) {
		c.ask(image, now)
	}
	return nil
}

// ask gets the sizes from one broker after the other, in the background.
func (c *Controller) ask(image *metadata.Image, now time.Time) {
	c.mu.Lock()
	c.mu.asking = true
	c.mu.Unlock()
	c.group.Go(func(ctx context.Context) {
		taken := look{at: now, sizes: map[base.BrokerID]HotSizes{}}
		for _, b := range image.AllBrokers() {
			if taken.sizes[b.ID], taken.err = c.opts.HotBytes(ctx, b); taken.err != nil {
				taken.err = fmt.Errorf("broker %d: %w", b.ID, taken.err)
				break
			}
		}
		c.mu.Lock()
		c.mu.asking, c.mu.look = false, &taken
		c.mu.Unlock()
		c.signal()
	})
}

// applyHot decides, and starts the reassignments.
func (c *Controller) applyHot(ctx context.Context, image *metadata.Image, sizes map[base.BrokerID]HotSizes, now time.Time) error {
	v, cluster := viewOf(image), c.cluster(image)
	partitions := make([]controller.HotPartition, len(v.states))
	for i, p := range v.partitions {
		partitions[i] = controller.HotPartition{ID: p.TP, State: v.states[i], Bytes: map[base.BrokerID]int64{}}
		for _, id := range p.Replicas {
			partitions[i].Bytes[id] = sizes[id][p.TP]
		}
	}
	plan := c.hot.Plan(partitions, candidates(image), cluster, hotRules(image.Broker(), min(hotMoves, c.opts.ReplicaMoves)), now)
	c.metrics.planned(ctx, plan)
	var changes []metadata.PartitionChange
	for _, move := range plan.Moves {
		next, err := controller.Reassign(v.states[move.Index], move.Target, cluster, image.Rules(v.partitions[move.Index]))
		if err == nil {
			changes = append(changes, metadata.PartitionChange{Partition: *v.partitions[move.Index], Next: next, Seen: image})
		}
	}
	if len(changes) > 0 {
		c.opts.Logger.Info("replicas move for their hot bytes", slog.Int("moves", len(changes)), slog.Int64("bytes", plan.Bytes),
			slog.Int64("difference", plan.Difference), slog.Int64("slack", plan.Slack))
	}
	return c.apply(ctx, changes)
}

func hotRules(config *metadata.BrokerConfig, moves int) controller.HotRules {
	return controller.HotRules{
		SlackRatio: config.BalanceHotSlackRatio, SlackBytes: config.BalanceHotSlackBytes, BytesPerSecond: config.BalanceHotRate,
		Interval: hotInterval(config), Moves: moves,
	}
}

func hotInterval(config *metadata.BrokerConfig) time.Duration {
	return time.Duration(config.BalanceHotIntervalMs) * time.Millisecond
}
