package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// scope is the instrumentation scope of everything this module measures.
const scope = "github.com/varvelog/varve"

// maxCardinality bounds the attribute sets of one instrument (I10): what comes later is counted under
// otel.metric.overflow instead of taking memory.
const maxCardinality = 20_000

// Options configure Start.
type Options struct {
	ServiceName string       // "varve" when empty
	Version     string       // of the binary; "dev" when empty
	NodeID      int32        // the broker's id, the resource's service.instance.id
	Logger      *slog.Logger // slog.Default() when nil; told about export errors
	// Getenv looks up the OTEL_* variables that decide about OTLP; os.Getenv when nil. The exporters themselves read
	// the rest of their settings from the process environment, as the OpenTelemetry specification says.
	Getenv func(string) string
}

// Telemetry is what a process measures and traces with. Safe for concurrent use; Shutdown is called once, last.
type Telemetry struct {
	Meter   metric.Meter
	Tracer  trace.Tracer
	Handler http.Handler // the Prometheus page
	closers []func(context.Context) error
}

// Start builds the providers. It fails only where the configuration is wrong: an OTLP endpoint that cannot be reached is
// retried in the background and logged, it never stops a broker.
func Start(ctx context.Context, o Options) (*Telemetry, error) {
	o.ensureDefaults()
	res := resource.NewSchemaless(
		attribute.String("service.name", o.ServiceName),
		attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", strconv.Itoa(int(o.NodeID))),
	)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	page, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithoutTargetInfo(),
		otelprom.WithoutScopeInfo(),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithoutSuffixes),
	)
	if err != nil {
		return nil, fmt.Errorf("create prometheus exporter: %w", err)
	}
	t := &Telemetry{Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError,
	})}
	if err := t.startMetrics(ctx, o, res, page); err != nil {
		return nil, err
	}
	if err := t.startTraces(ctx, o, res); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

func (o *Options) ensureDefaults() {
	if o.ServiceName == "" {
		o.ServiceName = "varve"
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
}

func (t *Telemetry) startMetrics(ctx context.Context, o Options, res *resource.Resource, page sdkmetric.Reader) error {
	opts := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(page),
		sdkmetric.WithCardinalityLimit(maxCardinality),
	}
	push, err := otlpMetricReader(ctx, o.Getenv)
	if err != nil {
		return fmt.Errorf("create otlp metric exporter: %w", err)
	}
	if push != nil {
		reportErrors(o.Logger)
		opts = append(opts, sdkmetric.WithReader(push))
	}
	provider := sdkmetric.NewMeterProvider(opts...)
	t.closers = append(t.closers, provider.Shutdown)
	t.Meter = provider.Meter(scope, metric.WithInstrumentationVersion(o.Version))
	return nil
}

func (t *Telemetry) startTraces(ctx context.Context, o Options, res *resource.Resource) error {
	push, err := otlpSpanProcessor(ctx, o.Getenv)
	if err != nil {
		return fmt.Errorf("create otlp trace exporter: %w", err)
	}
	if push == nil { // nobody would see the spans
		t.Tracer = tracenoop.NewTracerProvider().Tracer(scope)
		return nil
	}
	reportErrors(o.Logger)
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(push))
	t.closers = append(t.closers, provider.Shutdown)
	t.Tracer = provider.Tracer(scope, trace.WithInstrumentationVersion(o.Version))
	return nil
}

// reportErrors sends the SDK's background errors (an endpoint that does not answer) to the log. The SDK has one handler
// per process; a process starts one Telemetry.
func reportErrors(l *slog.Logger) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		l.Warn("telemetry export did not succeed", slog.Any("error", err))
	}))
}

// Shutdown sends what is pending to the OTLP endpoint, within ctx, and stops. Instruments may still be used, to no effect.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i](ctx))
	}
	t.closers = nil
	return errors.Join(errs...)
}
