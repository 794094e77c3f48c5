package txn

import "go.opentelemetry.io/otel/metric"

type counter = metric.Int64Counter

// instruments count what transactions do; what the shards do is counted by the runtime.
type instruments struct {
	committed, aborted, timedOut, expired, markerRetries counter
	markerWrites                                         metric.Int64UpDownCounter
}

func newInstruments(m metric.Meter) *instruments {
	i := &instruments{}
	i.committed, _ = m.Int64Counter("varve_txn_committed_total", metric.WithDescription("Transactions whose commit was decided."))
	i.aborted, _ = m.Int64Counter("varve_txn_aborted_total", metric.WithDescription("Transactions whose abort was decided."))
	i.timedOut, _ = m.Int64Counter("varve_txn_timed_out_total", metric.WithDescription("Transactions aborted because they took too long."))
	i.expired, _ = m.Int64Counter("varve_txn_ids_expired_total", metric.WithDescription("Transactional ids dropped because nobody used them."))
	i.markerRetries, _ = m.Int64Counter("varve_txn_marker_retries_total", metric.WithDescription("Rounds of markers that had to be repeated."))
	i.markerWrites, _ = m.Int64UpDownCounter("varve_txn_marker_writes",
		metric.WithDescription("Rounds of markers under way; limited by MaxMarkerWrites."))
	return i
}
