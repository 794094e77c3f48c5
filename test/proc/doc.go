// Package proc runs brokers as processes, for the programs that test them from outside: the demo, the benchmark, the
// conformance suites. Each broker has its own folder and free ports on loopback, and is stopped by its process id.
//
//	process.go  Process: a child that is watched and stopped
//	varve.go    StartVarve: bin/varve serve
//	kafka.go    StartKafka: Apache Kafka, one node, KRaft
package proc
