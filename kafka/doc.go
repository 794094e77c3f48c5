// Package kafka is the protocol edge: it turns bytes of Kafka clients into calls of ingest, fetch, metadata and the group
// coordinator, and their answers back into bytes. It owns no data and makes no decision about records.
//
// The life of a request:
//
//  1. listener.go   a connection is accepted, or refused where a limit is reached
//  2. frame.go      the length, the API key and the version are read into 12 bytes; what router.go does not list is refused here
//  3. admission.go  memory for the body is reserved before the body is read; who reserves and then stalls is evicted.
//     What moves the high watermark does not wait for the memory of what waits for it
//  4. schema.go     the body is walked once without allocating, so that no length in it can make the decoder allocate or spin
//  5. conn.go       the body is decoded with kmsg; a Produce is given to ingest at once (order is fixed by ingest.Append), and
//     the next request is read while its receipt is pending
//  6. conn.go       the connection's second goroutine finishes requests in order: it runs the handler (NN_name.go, one file per API
//     key) or waits for the receipt, encodes, and writes under a deadline
//  7. errors.go     the one place where an error becomes a wire code
//
// A connection costs one parked goroutine and a few hundred bytes while it is idle. Requests of one connection are answered in
// the order in which they came, one at a time, as Kafka's muted channels do; connections share nothing but the memory budget.
//
// What is not advertised, and why, is in SKIPPED.md.
package kafka
