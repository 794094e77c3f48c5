// Command torture breaks brokers under load by a seeded plan, and then checks everything that clients were told. With -brokers 3 (the
// default) or more it is a cluster, each broker in a network namespace of its own; with -brokers 1 one broker is killed again and again.
//
//	go run ./test/torture -bin bin/varve -secs 600 -seed 7      # make torture SECS=600 SEED=7
//	go run ./test/torture -bin bin/varve -brokers 1 -kills 200
//	go run ./test/torture -kafka                                # the same for Apache Kafka 4.3: does the harness cry wolf?
//
// Workload: idempotent producers with acks=all, a reader from the start that goes along, readers that begin anew, a group that commits
// and whose members come and go, reassignments and elections of preferred leaders all the while. In the end every partition is read
// with each broker as its leader, and the bucket is checked. The anomalies are those of package history; the rule of what may break at
// once stands at newPlan. The plan of a seed is always the same; what happens to meet what is not.
//
//	main.go     flags
//	plan.go     the plan: a pure function of the seed
//	cluster.go  the run of a cluster
//	faults.go   what each fault does
//	moves.go    reassignments and elections
//	verdict.go  the cluster is made whole, every replica read, the bucket checked
//	single.go   the run of one broker
//	load.go     producers
//	readers.go  readers of all from the start
//	members.go  the group
//	report.go   what is printed
//
// Where the machine allows no namespaces it says so and leaves out cuts and slow links; small disks need root too. It talks to its own
// network or to loopback only and ends by itself.
package main
