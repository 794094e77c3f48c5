// Package s3 is a bucket on S3 and on the servers that speak its protocol. It is the only package that imports minio-go.
//
// What it does beyond the client library, and why (each point was measured against MinIO, versitygw and Garage):
//
//   - Every PUT is one request (no multipart) with a precomputed x-amz-checksum-crc32c header. The library's own trailing
//     checksum is wrong after a retry, and over TLS it would send no checksum at all.
//   - If-None-Match is a belt only: some stores ignore it. Where it answers 412, the object may be our own, written by an
//     attempt whose reply was lost: HEAD tells, by the writer id in the metadata.
//   - Reads are one ranged GET whose size is verified; the lazy GetObject of the library would ask twice.
//   - Every request has a deadline of 10 s and what its bytes take at 5 MB/s (watchdog.go), since the library has none for bodies.
//   - Unfinished multipart uploads are swept by AbortUploads: MinIO and versitygw refuse the lifecycle rule for that.
package s3
