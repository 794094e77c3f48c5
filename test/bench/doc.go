// Command bench runs the same workloads against Apache Kafka and Varve in turn, on this machine, with the same client, and
// prints what each came to and the ratios: throughput, latency, the broker's CPU seconds per GB, bytes written per byte, and
// memory. `make bench` runs it; ARGS=--quick takes three minutes instead of ten.
//
// Both brokers start on empty folders with their default settings: Varve syncs to disk before it acknowledges, Kafka leaves
// that to the page cache. Every record that is read is checked for loss, duplication, order and damage.
//
//	main.go      rounds, brokers, the table
//	workload.go  what is run
//	system.go    the two brokers, behind what a workload needs of them
//	report.go    medians, ratios, JSON
package main
