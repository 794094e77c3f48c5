// Package compaction is the only holder of objstore.Deleter: whether some code can lose data is a question about this
// folder (I6). In this release it applies retention, deletes what manifests have let go of, deletes the objects of deleted
// topics, and sweeps the bucket; rewriting by key and merging come later. It never touches the produce path.
//
//	runner.go     the service: when each job runs
//	retention.go  PURE: a partition's segments and its topic's configuration -> its new log start offset
//	retain.go     the leader moves the log start, durably, then the manifest, through the log's commit turn in tiering
//	gc.go         objects that commits let go of, after the grace period, if nothing names them
//	topics.go     the objects of deleted topics; afterwards the log is forgotten
//	sweep.go      everything in the bucket that nothing names: what crashes left behind
//
// What protects an object from deletion: a manifest named by a current root, an archive of one, an intent (I7), the grace
// period. Every job reads in the order listing, intents, roots: a writer goes the other way (intent, PUT, root, end of the
// intent), so a listed object is covered by one of the two or was let go of. A swap of a root compares that its intents
// exist, so none comes after them, however late its request arrives: safety rests on no clock and on no grace. Whenever
// something current cannot be read, the job deletes nothing.
package compaction
