package telemetry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

func start(t *testing.T, env map[string]string) *Telemetry {
	t.Helper()
	tel, err := Start(t.Context(), Options{NodeID: 7, Getenv: func(k string) string { return env[k] }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(t.Context()) }) // a context that has ended: nothing is flushed to the endpoint that nobody serves
	return tel
}

func page(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// The names in the code are the names on the page: no suffix, no scope label.
func TestPageShowsNamesAsWritten(t *testing.T) {
	tel := start(t, nil)
	c, err := tel.Meter.Int64Counter("varve_fetch_bytes_total", metric.WithUnit("By"))
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 5, metric.WithAttributes(attribute.String("tier", "cold")))
	h, err := tel.Meter.Float64Histogram("varve_produce_seconds", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(0.001, 1))
	if err != nil {
		t.Fatal(err)
	}
	h.Record(t.Context(), 0.5)
	got := page(t, tel)
	for _, want := range []string{
		`varve_fetch_bytes_total{tier="cold"} 5`,
		`varve_produce_seconds_bucket{le="1"} 1`,
		"go_goroutines ",
		"process_resident_memory_bytes ",
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestWithoutEndpointNothingIsTraced(t *testing.T) {
	tel := start(t, nil)
	_, span := tel.Tracer.Start(t.Context(), "produce")
	defer span.End()
	if span.IsRecording() {
		t.Error("a span is recorded although no exporter will ever see it")
	}
}

func TestTwoInOneProcessDoNotShareARegistry(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	g, err := a.Meter.Int64Gauge("varve_only_in_a")
	if err != nil {
		t.Fatal(err)
	}
	g.Record(t.Context(), 1)
	if !strings.Contains(page(t, a), "varve_only_in_a") || strings.Contains(page(t, b), "varve_only_in_a") {
		t.Error("registries are shared")
	}
}

func TestEndpointSet(t *testing.T) {
	f := func(env map[string]string, want, wantErr bool) {
		t.Helper()
		got, err := endpointSet(func(k string) string { return env[k] }, "TRACES")
		if got != want || (err != nil) != wantErr {
			t.Errorf("%v: got %v, %v", env, got, err)
		}
	}
	f(nil, false, false)
	f(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, true, false)
	f(map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, true, false)
	f(map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, false, false)
	f(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_TRACES_EXPORTER": "none"}, false, false)
	f(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "true"}, false, false)
	f(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, false, true)
}

// An endpoint that nobody listens on is not an error at start, and spans are recorded for it.
func TestWithEndpointSpansAreRecorded(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tel := start(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
	_, span := tel.Tracer.Start(t.Context(), "produce")
	if !span.IsRecording() {
		t.Error("span is not recorded")
	}
}
