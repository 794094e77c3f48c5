// Package proc runs brokers as processes, for the programs that test them from outside: the demo, the benchmark, the
// conformance suites, the torture of a cluster. Each broker has its own folder and free ports on loopback, or a network namespace, is
// stopped by its process id, and on Linux dies with the process that started it, however that ends.
//
//	process.go  Process: a child that is watched and stopped
//	node.go     Node: bin/varve serve, ended, paused, wiped and started again on the same ports
//	page.go     what a broker's HTTP listener says: Topic, Metrics
//	cluster.go  Cluster: Nodes that know each other, on loopback or in namespaces, Varve's or Apache Kafka's
//	disk.go     SmallDisks: data directories that can fill
//	varve.go    StartVarve: a Node that is started once
//	kafka.go    StartKafka: Apache Kafka, one node, KRaft
package proc
