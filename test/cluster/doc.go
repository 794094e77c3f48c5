// Command cluster runs three brokers and a real S3 server (MinIO) on this machine until Ctrl-C: Kafka on 9092, 9094 and 9096, HTTP on
// 8080, 8082 and 8084, etcd on 2379 to 2384. The data stays in its directory and is found again by the next run.
//
//	go run ./test/cluster -varve bin/varve
package main
