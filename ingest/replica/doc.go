// Package replica is the replication of a partition's hot tail (design section 5): Kafka's leader and followers, as pure state
// machines, and the goroutine that pulls.
//
//	leader.go    what a leader knows of its followers; the high watermark (KIP-101, KIP-497, KIP-966)
//	isr.go       when a leader shrinks or expands the ISR, one proposal at a time
//	acks.go      the acks=all appends that wait for the high watermark
//	follower.go  what a follower does with a fetch response: truncate, append, start over
//	epochs.go    look-ups over the epochs of a log: end of an epoch, point of divergence, truncation (KIP-101, 279, 595)
//	fetcher.go   one goroutine per pair of brokers: pulls all shared partitions over one connection
//	startover.go logs that go on at the tiered end, beside that: the bucket may be slow
//	change.go    what of one answer is written together, and what a partition waits for after an error
//	quota.go     the token bucket of a replication quota (KIP-73)
//	session.go   the requests of that connection: incremental fetch sessions (KIP-227)
//	link.go      framing on that connection
//
// Leader and Follower do no I/O, know no clock and have no goroutines: time is passed in. They are not safe for concurrent use:
// the owner of the partition's state calls them under its lock.
//
// What they uphold. I1: the high watermark counts the leader's own log only as far as it is synced, a follower's only as far as
// its fetch offset says, which it moves after its sync; and every member of the ISR, or of an ISR that is proposed, counts.
// I2: a follower truncates to where the leader says that an epoch ended, never to its high watermark. I3: what is below the
// high watermark of any replica is in the log of every later leader.
//
// It relies on two things that are not here: a broker that has restarted leads only in a new leader epoch (its log may have
// lost what was not synced), and one that lost its disk leaves ISR and ELR before it is unfenced (I14).
package replica
