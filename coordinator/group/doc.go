// Package group is the consumer group coordinator: classic groups (KIP-62, 134, 266, 345, 394, 559, 800, 814) and
// committed offsets, stored in __consumer_offsets in Kafka's own record formats (FORMAT.md).
//
// It owns the decisions; package coordinator/runtime owns goroutines, timers and the log. A machine is the pure state of
// one partition of __consumer_offsets: a request or a timer in, records, answers and timers out.
//
//	group.go       the exported methods: one per API key, from request to response
//	machine.go     the state of a shard: groups and offsets; replay
//	classic.go     a classic group and its members, without any request
//	join.go        JoinGroup
//	rebalance.go   from the first joiner to a new generation
//	sync.go        SyncGroup and the leader's assignment
//	leave.go       Heartbeat, session expiry, LeaveGroup
//	offsets.go     the table of committed offsets and of those that transactions hold open
//	commit.go      OffsetCommit
//	fetch.go       OffsetFetch
//	expire.go      OffsetDelete, DeleteGroups, deleted topics, retention
//	describe.go    DescribeGroups, ListGroups
//	records.go     the record formats
//	subscription.go  what the broker reads of the consumer protocol's bytes
//
// What a group's members are doing between two generations is in memory only, as in Kafka: a record is written when a
// group is made, when its leader has assigned, when a static member is replaced, and when it becomes empty. After a
// failover a group is what its last record says, and its members' sessions start anew.
package group
