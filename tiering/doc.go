// Package tiering moves sealed ranges into the bucket and reads them back. It only adds objects: package compaction is
// the one that deletes (I6).
//
// It owns the formats in the bucket (tiering/segment, tiering/manifest, names.go), the upload loop, the commit of
// manifests, the cold reader, and what can be done with a bucket alone: Rebuild, Fsck, Cat. It never touches the hot store:
// it declares Source, and package broker hands it ingest.
//
// The steps of a sealed range (10 and 12 of the record's path):
//
//	archiver.go  a round: take sealed ranges, drop those that are tiered already (admit.go), plan objects (plan.go)
//	archiver.go  the intent that names every object of the round is durable before the first PUT (I7)
//	upload.go    build the segments, PUT, verify size and checksum
//	commit.go    one new manifest per partition, all in one object; each root is swapped on its own, fenced by its leader
//	             epoch (I4); an unknown outcome is resolved by reading the root again
//	archiver.go  Source.Tiered lets the hot store trim (I5); the intent is deleted
//	reader.go    offset -> manifest entry -> footer -> checksum blocks -> batches (I8), times.go by timestamp
//	drop.go      the log start moves: compaction's retention commits through the same turn of the log
//
// In a cluster leadership moves. Every broker follows the roots of all partitions (follow.go), so a new leader knows what its
// predecessor tiered, and goes on where that ended, whatever its own ranges are; what the predecessor still uploads is
// fenced by the leader epoch, at most once for each range, and is garbage. A replica that has nothing hot starts over at
// the tiered end (tail.go), for which it reads a manifest and a footer to the byte, and no record: the metric of bytes read has
// the kind, and record bytes are the downloads of the block cache.
//
// State: roots (roots.go) of all partitions in memory, manifests, archives and footers in bounded LRUs (lru.go). One
// committer per log at a time: whoever holds the log's turn (roots.go).
package tiering
