// Package history remembers what clients of a cluster were told while it was tortured or measured, and finds what cannot be: the anomalies of
// Jepsen's Kafka workload that need no transactions. It knows nothing of brokers, time or the network, so a test can tell it a lie.
//
//	value.go    Value: the record that says who sent it as which
//	history.go  History: sends and acknowledgements; Check
//	look.go     Look: what one reader saw, and how two of them differ
//	group.go    Group: what the members of a consumer group read and committed
//
// The log under test has no gaps: no transactions, no key compaction, no retention.
package history
