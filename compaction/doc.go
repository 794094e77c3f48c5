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
//
// In a cluster every broker applies retention to what it leads and collects what its own commits let go of; the controller
// sweeps and deletes topics' objects. That it is the controller is read from an image that may be old: nothing rests on it.
// What a job finds dead stays dead, whenever and by whomever it is deleted, for a manifest names only what the one before it
// named or what an intent of its swap names; of an object that no root leads to and no intent names neither comes again,
// because names and ids of intents are never used twice. So two controllers, or a job that sleeps for a day between its look
// and its deletion, delete the same objects, and it is no error to delete one twice. The other way round, an intent that
// is deleted while its writer is alive costs that writer an upload and nobody a record: its swap is refused. That is what the
// controller does to incarnations whose broker has registered anew, or is gone (metadata.Intent.Dead), and not to brokers
// that are merely fenced: they may be in the middle of an upload, or back in a moment.
package compaction
