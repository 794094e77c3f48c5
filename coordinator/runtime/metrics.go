package runtime

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// instruments are the meters of a runtime. An instrument that cannot be made is a no-op one; the errors are programming
// errors of names, which tests find.
type instruments struct {
	attrs    metric.MeasurementOption
	requests metric.Int64UpDownCounter
	pending  metric.Int64UpDownCounter
	appends  metric.Int64Counter
	records  metric.Int64Counter
	failures metric.Int64Counter
	replay   metric.Float64Histogram
	shards   metric.Int64UpDownCounter
}

func newInstruments(m metric.Meter, name string) *instruments {
	i := &instruments{attrs: metric.WithAttributeSet(attribute.NewSet(attribute.String("coordinator", name)))}
	i.requests, _ = m.Int64UpDownCounter("varve_coordinator_requests_waiting",
		metric.WithDescription("Requests in a mailbox or waiting for their answer."))
	i.pending, _ = m.Int64UpDownCounter("varve_coordinator_pending_bytes", metric.WithUnit("By"),
		metric.WithDescription("Records gathered or in flight; limited per shard by MaxPendingBytes."))
	i.appends, _ = m.Int64Counter("varve_coordinator_appends_total",
		metric.WithDescription("Batches handed to the log."))
	i.records, _ = m.Int64Counter("varve_coordinator_records_total",
		metric.WithDescription("Records handed to the log."))
	i.failures, _ = m.Int64Counter("varve_coordinator_append_failures_total",
		metric.WithDescription("Batches that the log did not commit."))
	i.replay, _ = m.Float64Histogram("varve_coordinator_replay_seconds", metric.WithUnit("s"),
		metric.WithDescription("Time from Lead to the first answer."))
	i.shards, _ = m.Int64UpDownCounter("varve_coordinator_shards",
		metric.WithDescription("Shards that are loading or active on this broker."))
	return i
}

func (i *instruments) add(c metric.Int64UpDownCounter, n int64) {
	c.Add(context.Background(), n, i.attrs)
}

func (i *instruments) count(c metric.Int64Counter, n int64) {
	c.Add(context.Background(), n, i.attrs)
}
