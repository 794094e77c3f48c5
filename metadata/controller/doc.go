// Package controller holds the controller's decisions as pure functions: no I/O, no clock, no goroutines. It imports nothing
// of ours but the identifiers, so that package metadata can call it.
//
//	elect.go     what follows for a partition from who is alive: leader, leader epoch, ISR, ELR (KIP-966)
//	isr.go       what a leader may propose for its ISR
//	reassign.go  moving a partition to other replicas (KIP-455)
//	place.go     where the replicas of new partitions go
//	balance.go   which leaders and replicas move in one round, by their number
//	hot.go       which replicas move for their hot bytes, and how many bytes at a time
//	liveness.go  who is to be fenced and unfenced, from heartbeats and probes
//
// What is decided holds only as long as what it was decided from: the caller writes each new State by compare-and-swap on
// the partition's key. What the whole rests on:
//
//	Every member of ISR and ELR holds every committed record. A leader therefore advances its high watermark only over
//	records that every member of its ISR holds, and not at all while the ISR is smaller than min.insync.replicas or the
//	committed state has an ELR that is not empty. The second condition is what makes a change of min.insync.replicas safe:
//	a leader that sees the lower value before the controller has cleared the ELR commits nothing that the ELR lacks.
//
//	A broker leads nothing from its registration until the controller has unfenced it, even where the state still names it
//	as the leader: it may have lost what it had, and would lead in an epoch that is not its own. Before it is unfenced,
//	whatever it led has a new leader epoch.
//
//	The ISR is never emptied by brokers that go away: where nobody in it is alive it stays, without a leader, until one
//	returns. It is empty only where its last member lost its disk (I14).
package controller
