// Package run is the controller at work: it follows the image and etcd's leadership, and carries out what package controller
// decides. Every broker runs one; only that of etcd's raft leader acts.
//
// One round (round.go): claim the controller key where that is due; fence who is dead; elect and settle partitions; unfence
// who is heard and ready; then balance. The order matters: a broker is fenced before its partitions are elected, so that no
// leader takes it into an ISR again, and unfenced after everything from before its registration is settled. Hot bytes (hot.go)
// come last, where nothing else is left to balance and every replica is in sync.
//
// Each write compares the controller key and the key that it replaces, so a controller that has been replaced, or whose image
// is old, changes nothing. Heartbeats come in by method calls; their transport is the broker's.
package run
