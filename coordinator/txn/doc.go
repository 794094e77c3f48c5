// Package txn is the transaction coordinator (KIP-98, 360, 588, 664, 890): the producer id and epoch of each transactional
// id and the transaction that it has open, stored in __transaction_state in Kafka's own record formats (FORMAT.md).
//
// It owns the decisions and the retries of markers; package coordinator/runtime owns the shards, their timers and the log.
// It never writes to a partition of a transaction itself: Options.WriteMarkers does.
//
//	txn.go         the exported methods: one per API key, from request to response
//	transaction.go a transactional id's state and its transitions, without any request
//	machine.go     the state of a shard; replay
//	init.go        InitProducerId: new ids, fencing, recovery
//	partitions.go  AddPartitionsToTxn, AddOffsetsToTxn
//	end.go         EndTxn, from Prepare to Complete
//	markers.go     the goroutines that have the markers written
//	expire.go      transactions that take too long, transactional ids that nobody uses
//	describe.go    DescribeTransactions, ListTransactions
//	records.go     the record formats
//
// A transaction goes Empty, Ongoing, PrepareCommit or PrepareAbort, CompleteCommit or CompleteAbort, and from there to
// Ongoing again. Prepare is the decision: once it is committed the outcome stands, whatever crashes, and the markers
// are written until every partition has its own; a new leader resumes them (I15). Complete says that they are.
//
// What Kafka calls a pending transition is two things here. While records are in flight the next request sees the state
// that they make and its answer waits for them, where Kafka answers CONCURRENT_TRANSACTIONS. While markers are being
// written the answer is CONCURRENT_TRANSACTIONS, as in Kafka.
//
// The broker's own aborts (a timeout, a fencing InitProducerId) bump the epoch as transaction version 2 does, whatever the
// client's version: this broker finalises transaction.version 2.
package txn
