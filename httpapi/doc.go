// Package httpapi is the broker's HTTP side: health, readiness, metrics, the little that operators ask of a broker
// and that Kafka's protocol has no request for, and, on request, the Go profiler.
//
// It only reads. What it shows comes in as functions in Options, so that it needs nothing of the broker to be tested.
//
//	server.go  listener, routes, limits, start and stop
//	topics.go  GET /v1/topics/NAME: where a topic's bytes are
//
//	GET /healthz          200 as long as the process answers
//	GET /readyz           200 once the broker serves, 503 and the reason as text before that and where it cannot write
//	GET /metrics          Prometheus text
//	GET /v1/topics/NAME   JSON, see Topic
//	GET /debug/pprof/     only with Options.Profiling
//
// REST produce and consume, the admin console and authentication come with later issues; until then bind it to
// loopback, the default.
package httpapi
