// Package segment is the format of tiered data: a segment is a range of one partition's record batches exactly as they
// were stored, then a footer with everything needed to read it without the cluster, then a fixed-size trailer that locates
// the footer. A pack concatenates segments of several partitions and ends with a directory. FORMAT.md draws the bytes.
//
// The package is pure: it turns batches into bytes and bytes into answers; package tiering moves the bytes.
//
//	builder.go  batches -> segment bytes
//	footer.go   footer and trailer, encode and decode
//	index.go    look-ups in a decoded footer
//	pack.go     the directory of an object that holds several parts (segments, or manifests)
//	check.go    the whole truth about a segment: every checksum, every batch, the index recomputed (fsck)
package segment
