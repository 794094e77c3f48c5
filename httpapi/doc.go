// Package httpapi is the broker's HTTP side: health, readiness, metrics, the little that operators ask of a broker
// and that Kafka's protocol has no request for, and, on request, the Go profiler.
//
// What it shows and does comes in as functions in Options, so that it needs nothing of the broker to be tested.
//
//	server.go  listener, routes, limits, start and stop
//	topics.go  GET /v1/topics/NAME: where a topic's bytes are
//	cluster.go GET /v1/cluster, and changes of the cluster: brokers that are drained, voters, the controller
//
//	GET /healthz          200 as long as the process answers
//	GET /readyz           200 once the broker serves, 503 and the reason as text before that and where it cannot write
//	GET /metrics          Prometheus text
//	GET /v1/topics/NAME   JSON, see Topic
//	GET /v1/cluster       JSON, see Cluster
//	PUT, DELETE /v1/brokers/ID/drain   begin to empty a broker, or stop it
//	POST /v1/voters, PUT and DELETE /v1/voters/ID   add, replace, remove a voter
//	PUT /v1/controller    move the controller
//	GET /debug/pprof/     only with Options.Profiling
//
// A change answers {} once it is made, else {"error": "..."}: 400 for what cannot be read, 404 for what does not exist, 409 for
// what the cluster refuses, 504 after 25 s, 500 otherwise. After the last two it may have been made.
//
// NB: who reaches the address may change the cluster; there is no authentication yet.
//
// REST produce and consume, the admin console and authentication come with later issues; until then bind it to
// loopback, the default.
package httpapi
