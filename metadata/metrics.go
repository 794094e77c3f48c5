package metadata

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// recorder holds the package's instruments.
type recorder struct {
	duration     metric.Float64Histogram
	registration metric.Registration
}

func newRecorder(meter metric.Meter, l *loader) (recorder, error) {
	duration, err := meter.Float64Histogram("varve_metadata_txn_duration_seconds",
		metric.WithUnit("s"), metric.WithDescription("Metadata transactions, by what they did and how they ended"))
	if err != nil {
		return recorder{}, fmt.Errorf("metadata instruments: %w", err)
	}
	topics, err := meter.Int64ObservableGauge("varve_metadata_topics", metric.WithDescription("Topics in the image"))
	if err != nil {
		return recorder{}, fmt.Errorf("metadata instruments: %w", err)
	}
	partitions, err := meter.Int64ObservableGauge("varve_metadata_partitions", metric.WithDescription("Partition keys in the image"))
	if err != nil {
		return recorder{}, fmt.Errorf("metadata instruments: %w", err)
	}
	revision, err := meter.Int64ObservableGauge("varve_metadata_revision", metric.WithDescription("Revision that the image shows"))
	if err != nil {
		return recorder{}, fmt.Errorf("metadata instruments: %w", err)
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		image, _ := l.current()
		o.ObserveInt64(topics, int64(image.byName.n))
		o.ObserveInt64(partitions, int64(image.logs.n))
		o.ObserveInt64(revision, image.revision)
		return nil
	}, topics, partitions, revision)
	if err != nil {
		return recorder{}, fmt.Errorf("metadata instruments: %w", err)
	}
	return recorder{duration: duration, registration: registration}, nil
}

func (r recorder) txn(ctx context.Context, what string, took time.Duration, res TxnResult, err error) {
	outcome := "committed"
	switch {
	case err != nil:
		outcome = "error"
	case !res.Committed:
		outcome = "conflict"
	}
	r.duration.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("operation", what), attribute.String("outcome", outcome)))
}

func (r recorder) close() error {
	if r.registration == nil {
		return nil
	}
	return r.registration.Unregister()
}
