// Package load is the load generator behind `varve bench` and the tests that need to know whether a log kept its word. It
// drives any Kafka broker through franz-go and measures throughput and latency; it knows nothing of Varve.
//
//	payload.go    what a record carries so that loss, duplication, reordering and damage show (Stamp, Checker)
//	produce.go    Produce: as fast as it goes or at a given rate
//	consume.go    Consume: from the first offset to an end, checking every record
//	latency.go    Latency: at a fixed rate, send to acknowledgement and send to consumption
//	histogram.go  quantiles in constant memory
//	process.go    CPU, memory and disk writes of a broker's process
//
// One partition is written by one client only, so that its sequence is the order in which the broker accepted it.
package load
