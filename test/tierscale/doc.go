// Command tierscale writes gigabytes through one broker into a real S3 server, with small segments and little local
// retention, and checks what must hold: the hot store stays bounded, every byte is read back (a hash chain per partition),
// a timestamp finds the same offset while its record is hot and when it is cold, fsck is clean, and nothing is left in the
// bucket once the topic is deleted.
//
//	go run ./test/tierscale --bin bin/varve --bytes 3000000000 --s3 minio
//
//	main.go     flags, the run, the report
//	records.go  what is written, and the hash chain
package main
