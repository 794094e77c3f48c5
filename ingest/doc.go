// Package ingest is the write path: steps 4 to 9 and 11 of a record's way (ARCHITECTURE.md).
//
//	append.go     Append: validate, check idempotence, assign offsets, hand to Pebble; returns a Receipt
//	partition.go  one partition: leader epoch, log start, log end, high watermark, what is hot and what is tiered
//	producers.go  idempotent producers: the last five batches of each (KIP-98)
//	pipeline.go   waits for the syncs in order, moves the high watermark, fills the tail, completes Receipts
//	tail.go       the newest committed batches of led partitions, by reference to the produce buffers
//	seal.go       size, age and pressure close a range for appends
//	trim.go       drops hot ranges that are tiered (I5) or below the log start offset
//	logstart.go   DeleteRecords: the log start offset moves, and the low watermark follows
//	throttle.go   replication quotas: what they count, and whom they may hold back (KIP-73)
//	read.go       the hot side of the read path
//	recover.go    from Pebble's rows back to partitions
//
// It never imports tiering: package broker hands sealed ranges over. One appender at a time per partition: the holder of
// Partition.order, which spans Pebble's commit pipeline so that the order in the WAL is the order of offsets (design
// section 4). Partition.mu guards the state and is never held across I/O: reads go on while the disk is full. Lock order:
// Ingest.mu, Partition.order in the order of log ids, Partition.mu, then pipeline.mu or tail.mu.
package ingest
