// Package telemetry wires the OpenTelemetry SDK: it owns the one meter provider, the one tracer provider and the
// Prometheus registry of a process, and is the only package that imports the SDK and its exporters.
//
// Every other package takes a metric.Meter or a trace.Tracer (the API, never the SDK) in its Options and works with the
// no-op ones.
//
//	telemetry.go  Start: resource, providers, the /metrics handler, shutdown
//	otlp.go       which OTLP exporters the environment asks for
//
// Names: instruments start with "varve_", carry their unit as the last word and counters end in "_total" (the exporter
// adds neither, so that a name in the code is the name on the dashboard). Besides them /metrics shows the Go
// runtime's ("go_") and the process's ("process_") own.
//
// It costs nothing while nobody looks: values are aggregated in place, /metrics is rendered when asked, and without an
// OTLP endpoint no goroutine runs and no span is recorded.
package telemetry
