package ingest

import (
	"context"
	"reflect"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// throttles are this broker's replication quotas (KIP-73): what it sends as a leader, and what it fetches as a follower, of the replicas
// that topics list. Both count in-sync replicas and hold back only others, so that nobody leaves an ISR for a quota.
type throttles struct {
	leader, follower *replica.Quota
}

func newThrottles() throttles { return throttles{replica.NewQuota(), replica.NewQuota()} }

// follow takes over an image's rates, and makes those who wait look again where one of the topics that changed lists others.
func (t *throttles) follow(old, image *metadata.Image, changed []*metadata.Topic, now time.Time) {
	cfg := image.Broker()
	limit := replica.Limit{Window: time.Duration(cfg.QuotaWindowSeconds) * time.Second, Windows: int(cfg.QuotaWindows)}
	limit.BytesPerSecond = cfg.LeaderThrottledRate
	t.leader.Set(limit, now)
	limit.BytesPerSecond = cfg.FollowerThrottledRate
	t.follower.Set(limit, now)
	limited := t.leader.Limited() || t.follower.Limited()
	if limited && slices.ContainsFunc(changed, func(topic *metadata.Topic) bool { return relisted(old, topic) }) {
		t.leader.Wake()
		t.follower.Wake()
	}
}

// relisted reports whether a topic that changed lists other throttled replicas than before.
func relisted(old *metadata.Image, t *metadata.Topic) bool {
	if old == nil {
		return false
	}
	was, ok := old.TopicByID(t.ID)
	return ok && was.Config != t.Config && !(reflect.DeepEqual(was.Config.LeaderThrottled, t.Config.LeaderThrottled) &&
		reflect.DeepEqual(was.Config.FollowerThrottled, t.Config.FollowerThrottled))
}

// LeaderQuota is the quota of what this broker sends to followers. What Throttled says is counted belongs to it.
func (g *Ingest) LeaderQuota() *replica.Quota { return g.throttles.leader }

// Throttled says what the leader's quota means for a follower of the partition: whether its bytes count, and whether it may be held
// back. Ask only where there is a limit.
func (p *Partition) Throttled(follower base.BrokerID) (counts, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	if m.leader == nil || !p.Config().LeaderThrottled.Has(m.tp.Partition, p.g.opts.Broker) {
		return false, false
	}
	return true, !m.leader.AwaitedFrom(follower)
}

// CountThrottled counts what a follower was sent of a replica whose bytes count.
func (g *Ingest) CountThrottled(bytes int64, held bool) {
	g.throttles.leader.Spend(bytes, held, g.clock.Now())
	g.metrics.throttled.Add(context.Background(), bytes, g.metrics.leaderSide)
}

// Closed implements replica.Throttle.
func (r *replicator) Closed(now time.Time) (wait time.Duration, changed <-chan struct{}) {
	_, wait, changed = r.g.throttles.follower.Room(now)
	return wait, changed
}

// Holds implements replica.Throttle.
func (r *replicator) Holds(id replica.ID) bool {
	counts, held := r.throttled(id)
	return counts && held
}

// throttled is Partition.Throttled for the follower's side, by the image: who is in the ISR there is not held back.
func (r *replicator) throttled(id replica.ID) (counts, held bool) {
	t, ok := r.g.opts.Meta.Image().TopicByID(id.Topic)
	self := r.g.opts.Broker
	if !ok || int(id.Partition) >= len(t.Partitions) || !t.Config.FollowerThrottled.Has(id.Partition, self) {
		return false, false
	}
	return true, !slices.Contains(t.Partitions[id.Partition].ISR, self)
}

// spend counts what a response brought of replicas that topics list.
func (r *replicator) spend(changes []replica.Change) {
	q := r.g.throttles.follower
	if !q.Limited() {
		return
	}
	now := r.g.clock.Now()
	for i := range changes {
		c := &changes[i]
		if len(c.Batches) == 0 {
			continue
		}
		if counts, held := r.throttled(c.ID); counts {
			bytes := sizeOf(c.Batches)
			q.Spend(bytes, held, now)
			r.g.metrics.throttled.Add(context.Background(), bytes, r.g.metrics.followerSide)
		}
	}
}

// sideOf is the attribute of a quota's metrics.
func sideOf(side string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("side", side)))
}
