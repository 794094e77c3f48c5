// Package mem is a bucket in memory for tests and simulations, stricter than any real store: it refuses to overwrite,
// refuses empty objects, segments of more than 255 bytes, a key that is a directory of another, reads past the end, and
// bodies whose size or checksum is not what was declared. It records every operation (trace.go), so that the expected
// output of a test can list them in order.
package mem
