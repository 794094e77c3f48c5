// Package record owns the record batch of magic 2 (KIP-98): the same bytes stand on the wire, in Pebble and in the bucket.
// FORMAT.md beside this file has the layout.
//
//	batch.go     Batch: a view on the bytes of one batch, header accessors, Split, CheckCRC
//	validate.go  Prepare: everything Kafka checks of a produced batch, in one walk over its records
//	scan.go      the walk: records as positions, in place or through the window of a decompressor; builds nothing
//	read.go      Each, FindTime, MaxTimestampRecord: readers of one batch
//	build.go     Build, Recompress: writers of one batch
//	compress.go  gzip, snappy (xerial framing), lz4, zstd, all pooled and bounded
//	control.go   keys and values of control records
//
// It never does I/O, starts no goroutine, and knows neither partitions nor time: what it needs is in Policy.
//
// Two kinds of errors leave it. A client's batch that is refused gives an *InvalidError around a kerr error (Prepare,
// CheckRequest). Bytes that were stored and are not what was written give base.MarkCorruption (everything else).
//
// Memory is bounded whatever the bytes say (I10): no size field is trusted beyond the bytes that are there, a batch
// decompresses to at most Policy.MaxInflatedBytes, and validation of a compressed batch holds a window, not the batch.
package record
