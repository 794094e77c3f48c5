package telemetry

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// endpointSet reports whether the environment asks for OTLP for a signal ("METRICS", "TRACES").
func endpointSet(getenv func(string) string, signal string) (bool, error) {
	if getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "" {
		return false, nil
	}
	if getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_"+signal+"_EXPORTER") == "none" {
		return false, nil
	}
	protocol := getenv("OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if protocol != "" && protocol != "grpc" {
		return false, fmt.Errorf("OTLP protocol %q is not built in: point the endpoint at a gRPC port (4317) and unset OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
	}
	return true, nil
}

// otlpMetricReader returns nil where no endpoint is set. The interval is OTEL_METRIC_EXPORT_INTERVAL, 60 s by default.
func otlpMetricReader(ctx context.Context, getenv func(string) string) (sdkmetric.Reader, error) {
	want, err := endpointSet(getenv, "METRICS")
	if !want {
		return nil, err
	}
	exporter, err := otlpmetricgrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewPeriodicReader(exporter), nil
}

// otlpSpanProcessor returns nil where no endpoint is set. Spans beyond the SDK's queue (OTEL_BSP_MAX_QUEUE_SIZE, 2048)
// are dropped: tracing never blocks the record's path.
func otlpSpanProcessor(ctx context.Context, getenv func(string) string) (sdktrace.SpanProcessor, error) {
	want, err := endpointSet(getenv, "TRACES")
	if !want {
		return nil, err
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	return sdktrace.NewBatchSpanProcessor(exporter), nil
}
