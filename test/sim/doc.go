// Package sim runs a whole cluster in one process: brokers on crashable disks in memory, a network and an object store in
// memory, a twin of etcd, and real clients, all in one testing/synctest bubble where time is fake. The workload and the faults
// follow from one seed; the scheduler does not, so a seed repeats what is tried, not every interleaving.
//
//	make sim SEED=7                          one seed, with its faults
//	go test ./test/sim -seeds 200            many, and the simulated hours that they were
//	go test ./test/sim -for 30m -from 1000   as many as fit
//
// Faults are in faults.go, those that meet leaders at moments that matter in leaders.go; a process that stands still and a wall clock that is
// wrong in clock.go; what is held against what while it runs in audit.go.
//
// A run is a minute or two of faults, then everything is healed, and what must hold is checked: see check.go.
package sim
