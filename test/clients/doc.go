// Command clients runs unmodified Kafka clients of other makers against Varve, each through restarts of the broker, and checks
// every record. `make clients` runs it; install.sh fetches what the clients need, once, into ${VARVE_TOOLS:-~/.cache/varve-tools}.
//
// A client is a program in the client's own language (folders franz, sarama, java, python, node; tools drives kcat and Kafka's
// console tools). It is started as
//
//	PROGRAM HOST:PORT PREFIX ROUNDS RECORDS
//
// creates one topic PREFIX-CODEC of three partitions for each of none, gzip, snappy, lz4 and zstd, and then does ROUNDS times:
// produce RECORDS records to each topic (idempotent producer), consume them as group PREFIX-group, commit. It keeps its
// producers and its consumer from the first round to the last. Its standard output is the protocol:
//
//	R topic partition offset key value headers   a record that the consumer was given; bytes as xHEX, null as -
//	HALF                                         a round is over; a line on standard input starts the next one
//	OK records=N                                 the end: so many different records came
//
// At each HALF the broker is restarted on the same ports and data: after kill -9, after SIGTERM, and then both again while the
// client is at work. What came is checked here and not in the clients: each record exactly once with its key, value and
// headers, in order per key, the group's committed offsets at the end, and all of it once more read by franz-go.
//
//	main.go     flags, the table of results
//	roster.go   the clients: how they are started and what they cannot do
//	session.go  one client: protocol and restarts
//	expect.go   what record number i of a topic is, the same in every language
//	check.go    what came against what is expected
//	readback.go the topics and the group's offsets as a third party sees them
//	admin/      Kafka's admin tools against Varve and Apache Kafka: the same output
package main
