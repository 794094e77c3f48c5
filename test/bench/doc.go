// Command bench runs the same workloads against Apache Kafka and Varve in turn, on this machine, with the same client, and
// prints what each came to and the ratios: throughput, latency, the brokers' CPU seconds per GB, bytes written per byte, and
// memory. `make bench` runs it: one broker of each, then three of each (ARGS=-cluster: only those), in ten minutes and ten;
// ARGS=--quick takes a third of the data. ARGS=-scale is another run: three of each with 5,000 partitions (ARGS="-scale
// -partitions 1000": fewer), how long they take to create, to start, and to do without a broker that was killed.
//
// All brokers start on empty folders with their default settings: Varve syncs to disk before it acknowledges, Kafka leaves
// that to the page cache. In a cluster every topic has three replicas and min.insync.replicas=2; Varve's three share a
// directory as their bucket and take --memory 1GiB each, Kafka's are broker and controller in one process with -Xmx1G each.
// Every record that is read is checked for loss, duplication, order and damage.
//
// What others do on the machine meanwhile decides more than the brokers do: each figure comes with the cores that others kept
// busy ("others"). Compare runs where that is alike, and small. Kafka keeps several files for each partition: on a file
// system that creates them slowly (the report's first lines say; an ext4 without a journal is one) its many-partition
// figures are that file system's. TMPDIR chooses another.
//
//	main.go      rounds, systems, flags
//	workload.go  what is run on one broker
//	cluster.go   what is run on three
//	scale.go     many partitions; view.go: what each broker says of them
//	system.go    the brokers, behind what a workload needs of them
//	noise.go     the rest of the machine
//	profile.go   CPU profiles of Varve's brokers
//	report.go    medians, ratios, JSON
package main
