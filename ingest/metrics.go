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
	tiers          map[Tier]metric.MeasurementOption
}

func newMetrics(m metric.Meter, g *Ingest) (*metrics, error) {
	x := &metrics{tiers: map[Tier]metric.MeasurementOption{}}
	for _, t := range []Tier{TierTail, TierHot, TierCold} {
		x.tiers[t] = metric.WithAttributeSet(attribute.NewSet(attribute.String("tier", string(t))))
	}
	var err error
	if x.bytes, err = m.Int64Counter("varve_ingest_bytes_total", metric.WithUnit("By"), metric.WithDescription("Bytes of committed record batches.")); err != nil {
		return nil, err
	}
	if x.records, err = m.Int64Counter("varve_ingest_records_total", metric.WithDescription("Committed records.")); err != nil {
		return nil, err
	}
	if x.fetched, err = m.Int64Counter("varve_fetch_bytes_total", metric.WithUnit("By"), metric.WithDescription("Bytes of record batches that were read for consumers, by tier.")); err != nil {
		return nil, err
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
