package etcdkv

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"
)

// observe registers the member's gauges; the caller unregisters them before the member closes.
func (m *Member) observe(meter metric.Meter, quotaBytes int64) (metric.Registration, error) {
	size, err := meter.Int64ObservableGauge("varve_metadata_db_bytes",
		metric.WithUnit("By"), metric.WithDescription("Size of the embedded etcd database on disk"))
	if err != nil {
		return nil, fmt.Errorf("etcd instruments: %w", err)
	}
	quota, err := meter.Int64ObservableGauge("varve_metadata_db_quota_bytes",
		metric.WithUnit("By"), metric.WithDescription("Size of the database at which etcd refuses writes"))
	if err != nil {
		return nil, fmt.Errorf("etcd instruments: %w", err)
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(size, m.etcd.Server.Backend().Size())
		o.ObserveInt64(quota, quotaBytes)
		return nil
	}, size, quota)
	if err != nil {
		return nil, fmt.Errorf("etcd instruments: %w", err)
	}
	return registration, nil
}
