// Package fetch is the read path: steps 8 and 12 of a record's way (ARCHITECTURE.md). It is the only place where the hot
// and the cold tier meet.
//
//	plan.go     PURE: which tier serves an offset, and what a partition is answered without reading
//	fetch.go    Fetch: all hot partitions at once, all cold ones in parallel, then within the limits of the request
//	failures.go what a cold read that fails is answered, logged and counted as
//	wait.go     the long poll: until enough bytes are there, the deadline, or an error
//	follower.go a replica's Fetch; held.go what a replication quota leaves out of it
//	offsets.go  ListOffsets: the special timestamps and look-ups by time, over both tiers (I8)
//
// It never writes. A cold read has its own budget (I12): the goroutines that wait for the bucket are bounded by
// Options.ColdReads, and a Fetch that waits for them holds nothing that a produce or a hot fetch needs.
package fetch
