// Package proc runs brokers as processes, for the programs that test them from outside: the demo, the benchmark, the
// conformance suites. Each broker has its own folder and free ports on loopback, and is stopped by its process id.
//
//	process.go  Process: a child that is watched and stopped
//	node.go     Node: bin/varve serve, ended and started again on the same ports
//	varve.go    StartVarve: a Node that is started once
//	kafka.go    StartKafka: Apache Kafka, one node, KRaft
package proc
