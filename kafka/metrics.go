package kafka

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the instruments of the edge. Attribute sets are built once per combination, not per request.
type metrics struct {
	s *Server

	requests, requestSize, responseSize metric.Int64Counter
	closed, refused, throttles          metric.Int64Counter
	duration                            metric.Float64Histogram
	flight                              metric.Int64UpDownCounter

	sets sync.Map // setKey -> metric.MeasurementOption
}

type setKey struct {
	route   *route
	version int16
	code    int16
	text    string
}

func newMetrics(m metric.Meter, s *Server) *metrics {
	var errs []error
	counter := func(name, what, unit string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithDescription(what), metric.WithUnit(unit))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, what, unit string, read func() int64) {
		_, err := m.Int64ObservableGauge(name, metric.WithDescription(what), metric.WithUnit(unit),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(read()); return nil }))
		errs = append(errs, err)
	}
	x := &metrics{s: s}
	x.requests = counter("varve_kafka_requests_total", "Requests answered, by api, version and first error.", "{request}")
	x.requestSize = counter("varve_kafka_request_bytes_total", "Bytes of requests, by api.", "By")
	x.responseSize = counter("varve_kafka_response_bytes_total", "Bytes of responses, by api.", "By")
	x.closed = counter("varve_kafka_connections_closed_total", "Connections that ended, by reason.", "{connection}")
	x.refused = counter("varve_kafka_connections_refused_total", "Connections refused at a limit.", "{connection}")
	x.throttles = counter("varve_kafka_throttles_total", "Requests whose client was throttled, by api.", "{request}")
	var err error
	x.duration, err = m.Float64Histogram("varve_kafka_request_duration_seconds",
		metric.WithDescription("Time from a decoded request to its written response, by api."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
	errs = append(errs, err)
	x.flight, err = m.Int64UpDownCounter("varve_kafka_requests_in_flight", metric.WithDescription("Requests read but not answered."), metric.WithUnit("{request}"))
	errs = append(errs, err)
	gauge("varve_kafka_connections", "Open connections.", "{connection}", func() int64 { return int64(s.conns.count()) })
	gauge("varve_kafka_connections_limit", "Limit of varve_kafka_connections: max.connections.", "{connection}", func() int64 { return int64(s.connectionLimits("").total) })
	gauge("varve_kafka_request_memory_bytes", "Memory reserved by requests.", "By", func() int64 { return s.requests.inUse() })
	gauge("varve_kafka_request_memory_limit_bytes", "Limit of varve_kafka_request_memory_bytes.", "By", func() int64 { return s.requests.limit() })
	gauge("varve_kafka_parked_memory_bytes", "Memory of requests whose handler waits.", "By", func() int64 { return s.parked.inUse() })
	gauge("varve_kafka_parked_memory_limit_bytes", "Limit of varve_kafka_parked_memory_bytes.", "By", func() int64 { return s.parked.limit })
	gauge("varve_kafka_fetch_memory_bytes", "Fetched bytes that are not yet written.", "By", func() int64 { return s.fetched.used.Load() })
	gauge("varve_kafka_fetch_memory_limit_bytes", "Limit of varve_kafka_fetch_memory_bytes.", "By", func() int64 { return s.fetched.limit })
	gauge("varve_kafka_fetch_sessions", "Fetch sessions (KIP-227).", "{session}", func() int64 { n, _ := s.sessions.size(); return int64(n) })
	gauge("varve_kafka_fetch_sessions_limit", "max.incremental.fetch.session.cache.slots.", "{session}", func() int64 { return int64(s.opts.Limits.FetchSessionSlots) })
	gauge("varve_kafka_fetch_session_partitions", "Partitions in all fetch sessions.", "{partition}", func() int64 { _, n := s.sessions.size(); return int64(n) })
	if err := errors.Join(errs...); err != nil {
		s.log.Error("metrics are incomplete", slog.Any("err", err))
	}
	return x
}

// set returns the cached attributes of key.
func (x *metrics) set(key setKey) metric.MeasurementOption {
	if v, ok := x.sets.Load(key); ok {
		return v.(metric.MeasurementOption)
	}
	var attrs []attribute.KeyValue
	if key.route != nil {
		attrs = append(attrs, attribute.String("api", key.route.name))
	}
	if key.version >= 0 {
		attrs = append(attrs, attribute.Int("version", int(key.version)))
		name := "NONE"
		if e := kerr.TypedErrorForCode(key.code); e != nil {
			name = e.Message
		}
		attrs = append(attrs, attribute.String("error", name))
	}
	if key.text != "" {
		attrs = append(attrs, attribute.String("reason", key.text))
	}
	v, _ := x.sets.LoadOrStore(key, metric.WithAttributeSet(attribute.NewSet(attrs...)))
	return v.(metric.MeasurementOption)
}

var background = context.Background()

func (x *metrics) done(r *request) {
	x.flight.Add(background, -1)
	x.requests.Add(background, 1, x.set(setKey{route: r.route, version: r.version, code: r.failure}))
	x.duration.Record(background, x.s.opts.Clock.Now().Sub(r.at).Seconds(), x.set(setKey{route: r.route, version: -1}))
	if r.span != nil {
		r.span.End()
	}
}

func (x *metrics) requestBytes(f *frame) {
	x.requestSize.Add(background, int64(f.size+4), x.set(setKey{route: f.route, version: -1}))
}

func (x *metrics) responseBytes(r *request, n int) {
	x.responseSize.Add(background, int64(n), x.set(setKey{route: r.route, version: -1}))
}

func (x *metrics) inFlight(n int64) { x.flight.Add(background, n) }

func (x *metrics) throttled(r *route) {
	x.throttles.Add(background, 1, x.set(setKey{route: r, version: -1}))
}

func (x *metrics) connectionRefused(reason string) {
	x.refused.Add(background, 1, x.set(setKey{version: -1, text: reason}))
}

// writeFailed counts connections that did not take their answers.
func (x *metrics) writeFailed(err error) {
	reason := "write"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		reason = "slow reader"
	}
	x.closed.Add(background, 1, x.set(setKey{version: -1, text: reason}))
}

func (x *metrics) connectionEnded(err error) {
	var bad *protocolError
	reason := "error"
	switch {
	case err == nil, errors.Is(err, io.EOF):
		reason = "client"
	case errors.As(err, &bad):
		reason = "protocol"
	case errors.Is(err, errIdle):
		reason = "idle"
	case errors.Is(err, errDraining):
		reason = "shutdown"
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = "timeout"
	}
	x.closed.Add(background, 1, x.set(setKey{version: -1, text: reason}))
}

// traced reports whether requests of the route get a span.
func (s *Server) traced(r *route) bool { return r.span != "" && s.tracing }

// linesPerSecond bounds the log lines that clients can cause; the metrics count all.
const linesPerSecond = 20
