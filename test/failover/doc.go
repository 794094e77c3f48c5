// Command failover measures what producers see of a cluster that loses a broker: three brokers, factor 3, min.insync.replicas 2, 2,000
// records a second over partitions that all brokers lead. In each round something happens to one broker; the longest time between two
// acknowledgements that any partition sees is the round's figure. All that was acknowledged is read back and checked at the end.
//
//	go run ./test/failover -varve bin/varve              # all cases, 10 rounds each
//	go run ./test/failover -kafka -only leader,restart   # the same against Apache Kafka 4.3
//
// Cases (Varve's controller is etcd's leader: the two cannot be killed apart, and every broker leads partitions):
//
//	leader      kill -9 of a broker that is not the controller
//	controller  kill -9 of the controller
//	restart     SIGTERM and start of each broker in turn, the controller last
//	pause       SIGSTOP for -pause
//	cut         the broker hears nobody and nobody hears it, for -pause (needs network namespaces)
//
// The client is franz-go, idempotent, acks=all, no linger, metadata age 100 ms (least and most), retry back-off 50 ms, as many retries as
// it takes, the other time-outs its defaults (10 s for a produce, 10 s on top for the network). A broker that hangs holds what was sent to
// it for as long; so in pause and cut fresh producers try each of its partitions every 100 ms, and how long none of them gets through
// is the figure "fresh". "back" is the longest stall while the broker comes back and leads again.
//
//	main.go    flags, the run
//	load.go    the producer and its stalls
//	cases.go   what happens in a round
//	fresh.go   producers that begin when the fault has begun
//	report.go  the table and the JSON
package main
