// Command torture kills a broker with SIGKILL again and again while idempotent producers and a consumer are at work, and then
// checks everything that was acknowledged: it is there, once, at the offset of its acknowledgement, in its producer's order;
// what a consumer saw at an offset is what is there in the end; the bucket is clean after one scrub.
//
//	go run ./test/torture --bin bin/varve --kills 200 --seed 1
//
//	main.go     flags, the run, the report
//	load.go     producers that remember what was acknowledged
//	check.go    the consumer that runs along, and the final look at every record
//
// It talks to loopback only and ends by itself.
package main
