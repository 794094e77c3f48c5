// Package coordinator holds what the group and transaction coordinators share: the log they are replicated by.
//
// A coordinator is a replicated state machine over one internal topic. Package coordinator/runtime runs the machines:
// one shard and one goroutine per partition of the topic, requests in, records out, answers when the records are
// committed. Package coordinator/group is the machine of consumer groups (__consumer_offsets), package coordinator/txn that of
// transactions (__transaction_state). None knows where the log is stored: package broker hands in an implementation of Log made of
// ingest and fetch.
package coordinator
