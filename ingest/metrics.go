package ingest

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/record"
)

// metrics are the instruments of the write path.
type metrics struct {
	bytes, records metric.Int64Counter
	fetched        metric.Int64Counter
	replicatedIn   metric.Int64Counter
	replicatedOut  metric.Int64Counter
	isrChanges     metric.Int64Counter
	startedOver    metric.Int64Counter
	throttled      metric.Int64Counter
	tiers          map[Tier]metric.MeasurementOption
	leaderSide     metric.MeasurementOption
	followerSide   metric.MeasurementOption
}

func newMetrics(m metric.Meter, g *Ingest) (*metrics, error) {
	x := &metrics{tiers: map[Tier]metric.MeasurementOption{}, leaderSide: sideOf("leader"), followerSide: sideOf("follower")}
	for _, t := range []Tier{TierTail, TierHot, TierCold} {
		x.tiers[t] = metric.WithAttributeSet(attribute.NewSet(attribute.String("tier", string(t))))
	}
	counters := []struct {
		to               *metric.Int64Counter
		name, unit, help string
	}{
		{&x.bytes, "varve_ingest_bytes_total", "By", "Bytes of record batches that producers appended here."},
		{&x.records, "varve_ingest_records_total", "{record}", "Records that producers appended here."},
		{&x.fetched, "varve_fetch_bytes_total", "By", "Bytes of record batches that were read for consumers, by tier."},
		{&x.replicatedIn, "varve_replication_in_bytes_total", "By", "Bytes of record batches that were fetched from leaders: hot ones, no others move."},
		{&x.replicatedOut, "varve_replication_out_bytes_total", "By", "Bytes of record batches that followers were given."},
		{&x.isrChanges, "varve_replication_isr_changes_total", "{change}", "Changes of ISRs that leaders here had written."},
		{&x.startedOver, "varve_replication_started_over_total", "{log}", "Replicas that went on from the end of the tiered range."},
		{&x.throttled, "varve_replication_throttled_bytes_total", "By", "Bytes of replicas that a replication quota counts, by side: leader or follower."},
	}
	for _, c := range counters {
		var err error
		if *c.to, err = m.Int64Counter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.help)); err != nil {
			return nil, err
		}
	}
	gauges := []struct {
		name, help string
		read       func() int64
	}{
		{"varve_ingest_tail_bytes", "Bytes that the in-memory tail holds.", g.tail.size},
		{"varve_ingest_tail_limit_bytes", "Bound of the in-memory tail.", func() int64 { return g.opts.TailBytes }},
		{"varve_ingest_pending_bytes", "Bytes of appends that wait for the disk.", g.pipe.pendingBytes},
		{"varve_ingest_pending_limit_bytes", "At it appends wait before they are ordered.", func() int64 { return g.opts.PendingBytes }},
		{"varve_ingest_untiered_bytes", "Hot bytes that no committed manifest names yet.", g.untieredBytes},
		{"varve_ingest_untiered_limit_bytes", "Above it the largest open ranges are sealed early.", func() int64 { return g.opts.UntieredBytes }},
		{"varve_ingest_hot_bytes", "Bytes of record batches in the hot store.", g.hotBytes},
		{"varve_ingest_hot_limit_bytes", "Budget of tiered bytes that stay hot without local.retention (varve.hot.bytes).", func() int64 { return g.opts.HotBytes }},
		{"varve_ingest_decompressions", "Batches that are being decompressed, or compressed anew.", func() int64 {
			now, _, _ := record.Decompressions()
			return int64(now)
		}},
		{"varve_ingest_decompressions_limit", "How many may be at a time: two per processor; and one large one beside them.", func() int64 {
			_, limit, large := record.Decompressions()
			return int64(limit + large)
		}},
		{"varve_replication_under_replicated_partitions", "Partitions led here that miss a replica in the ISR.", func() int64 { return g.count((*Partition).underReplicatedLocked) }},
		{"varve_replication_under_min_isr_partitions", "Partitions led here with fewer in-sync replicas than min.insync.replicas.", func() int64 { return g.count((*Partition).underMinLocked) }},
		{"varve_replication_leader_throttle_limit", "leader.replication.throttled.rate in bytes per second.", func() int64 { return g.throttles.leader.Rate() }},
		{"varve_replication_follower_throttle_limit", "follower.replication.throttled.rate in bytes per second.", func() int64 { return g.throttles.follower.Rate() }},
		{"varve_replication_leaders", "Partitions that this broker leads.", func() int64 { return g.count((*Partition).leadsLocked) }},
		{"varve_ingest_partitions", "Partitions that this broker holds.", func() int64 { return int64(len(g.all())) }},
	}
	for _, ga := range gauges {
		_, err := m.Int64ObservableGauge(ga.name, metric.WithDescription(ga.help), metric.WithInt64Callback(
			func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(ga.read())
				return nil
			}))
		if err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (m *metrics) appended(bytes int, records int32) {
	m.bytes.Add(context.Background(), int64(bytes))
	m.records.Add(context.Background(), int64(records))
}

// CountFetched counts bytes that a consumer was given.
func (g *Ingest) CountFetched(t Tier, bytes int) {
	g.metrics.fetched.Add(context.Background(), int64(bytes), g.metrics.tiers[t])
}

// count counts partitions.
func (g *Ingest) count(which func(*Partition) bool) (n int64) {
	for _, p := range g.all() {
		p.mu.Lock()
		if which(p) {
			n++
		}
		p.mu.Unlock()
	}
	return n
}

func (p *Partition) leadsLocked() bool { return p.mu.leader != nil }

func (p *Partition) underReplicatedLocked() bool {
	return p.mu.leader != nil && len(p.mu.state.ISR) < len(p.mu.state.Replicas)
}

func (p *Partition) underMinLocked() bool {
	return p.mu.leader != nil && len(p.mu.state.ISR) < min(p.minInSync(), len(p.mu.state.Replicas))
}

func (g *Ingest) untieredBytes() (n int64) {
	for _, p := range g.all() {
		p.mu.Lock()
		n += p.untieredLocked()
		p.mu.Unlock()
	}
	return n
}

func (g *Ingest) hotBytes() (n int64) {
	for _, p := range g.all() {
		p.mu.Lock()
		n += p.hotBytesLocked()
		p.mu.Unlock()
	}
	return n
}
