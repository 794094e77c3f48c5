// Command replace shows that brokers can be thrown away: what it costs a cluster with tiered data to get a broker whose disk is empty.
// Three brokers, factor 3, min.insync.replicas 2, a real S3 server; so many bytes are written, tiered and trimmed, then a hot tail
// that is not tiered, as far as --memory lets it. Under a light load of an idempotent producer:
//
//	disks  two of the three are killed and lose their disks, one after the other, each once the cluster is whole; the second is
//	       the controller
//	join   a fourth broker joins, and the cluster balances itself
//
//	go run ./test/replace -varve bin/varve -bytes 10000000000   # both cases
//	go run ./test/replace -only join -bytes 1000000000          # one of them
//
// Figures are times from the start of the new process, and bytes as all brokers' /metrics count them during the case: what was
// replicated, and what was read from the bucket, by kind. No record byte is to be read (records), but what says where they are and
// who wrote them: manifests and footers. In the end every record is read back and checked.
//
//	main.go      flags, the run
//	stock.go     what is written before; when it is tiered and trimmed
//	cases.go     what happens, and when it is over
//	quorum.go    the voters of the metadata
//	counters.go  the brokers' metrics
//	report.go    the figures
//	delay.go     an S3 server that is far away (-s3-delay)
package main
