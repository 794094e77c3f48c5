package compaction

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

type metrics struct {
	deletes, jobs, orphans metric.Int64Counter
	reg                    metric.Registration
}

func newMetrics(r *Runner) (*metrics, error) {
	m := &metrics{}
	var err error
	if m.deletes, err = r.o.Meter.Int64Counter("varve_compaction_deleted_objects", metric.WithUnit("1"), metric.WithDescription("Objects deleted, by reason.")); err != nil {
		return nil, err
	}
	if m.jobs, err = r.o.Meter.Int64Counter("varve_compaction_jobs", metric.WithUnit("1"), metric.WithDescription("Jobs run, by kind and outcome.")); err != nil {
		return nil, err
	}
	if m.orphans, err = r.o.Meter.Int64Counter("varve_compaction_orphans", metric.WithUnit("1"), metric.WithDescription("Orphans that sweeps found past the grace period.")); err != nil {
		return nil, err
	}
	waiting, err := r.o.Meter.Int64ObservableGauge("varve_compaction_pending_objects", metric.WithUnit("1"), metric.WithDescription("Objects whose grace period runs (limit: MaxPending)."))
	if err != nil {
		return nil, err
	}
	m.reg, err = r.o.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(waiting, r.pending.len())
		return nil
	}, waiting)
	return m, err
}

func (m *metrics) job(ctx context.Context, name string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.jobs.Add(ctx, 1, metric.WithAttributes(attribute.String("job", name), attribute.String("outcome", outcome)))
}

func (m *metrics) deleted(ctx context.Context, why string, n int) {
	m.deletes.Add(ctx, int64(n), metric.WithAttributes(attribute.String("reason", why)))
}

func (m *metrics) swept(ctx context.Context, n int) { m.orphans.Add(ctx, int64(n)) }

func (m *metrics) close() {
	if m.reg != nil {
		_ = m.reg.Unregister()
	}
}
