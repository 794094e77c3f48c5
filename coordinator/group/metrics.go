package group

import "go.opentelemetry.io/otel/metric"

type counter = metric.Int64Counter

// instruments count what groups do; what the shards do is counted by the runtime.
type instruments struct{ rebalances, commits, expired counter }

func newInstruments(m metric.Meter) *instruments {
	i := &instruments{}
	i.rebalances, _ = m.Int64Counter("varve_group_rebalances_total", metric.WithDescription("Generations that became stable."))
	i.commits, _ = m.Int64Counter("varve_group_offset_commits_total", metric.WithDescription("Offsets committed."))
	i.expired, _ = m.Int64Counter("varve_group_offsets_expired_total", metric.WithDescription("Offsets dropped by retention."))
	return i
}
