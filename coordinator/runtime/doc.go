// Package runtime runs coordinators: replicated state machines over the partitions of an internal topic.
//
// It owns the goroutines, the timers, the order of appends and the waiting; a Machine owns the decisions. It knows
// nothing of groups or transactions and nothing of how the log is stored.
//
//	1 runtime.go   Lead makes a shard for a partition, Resign ends it, Call hands it a request and waits
//	2 replay.go    the shard replays the log before it takes the first request (I15)
//	3 shard.go     one goroutine: a request, a due timer or a settled append is one step of the machine
//	4 effects.go   the step's output: records, answers, timers
//	5 pending.go   records of many requests share a batch while the batch before them is in flight
//	6 shard.go     committed: answers leave. Lost: the state is taken back and the callers get the log's error
//	7 timer.go     the timers of a shard: a heap, and one clock timer for its earliest entry
//
// Records change the machine's state when they are appended, so that the next request sees them; what an answer says is
// committed before the answer leaves. When an append is lost, the steps since then are taken back by the undo functions
// that they registered (Effects.OnUndo), newest first. Undo rather than a replay: a log that refuses writes for a minute
// (NOT_ENOUGH_REPLICAS) would otherwise be read from its start for every refused commit, and members that have joined but
// are not in the log yet would be forgotten. Only when the log says that this broker does not lead, and what became of
// the batch is therefore unknown, the shard is dropped and loaded again.
//
// An idle shard costs a blocked goroutine and no CPU.
package runtime
