// Package hot is the hot store: it keeps the newest part of every log of a broker in one Pebble instance (one per data
// disk), record batches as values, and brings it back after a crash.
//
// It owns the key schema (keys.go, FORMAT.md), durability and the behaviour of a full or failing disk. It never looks
// into a batch beyond its header, never decides what to seal, trim or truncate, and never talks to the bucket.
//
// The steps of a batch, in order:
//
//	write.go    a Write collects batches and rows; Apply fixes the order (and makes it visible), Commit.Wait confirms the sync (I1)
//	read.go     Read copies whole batches out of memtable or files. NB: it also sees what is not synced yet, or whose
//	            sync failed: the caller serves only up to what Wait confirmed (I3)
//	trim.go     TrimAll drops what the bucket has (I5), Drop a whole log, Reclaim gives the space back when idle
//	recover.go  Logs tells, after Open, which logs exist and where they end
//	engine.go   Pebble's settings (figures in the comments), its events, and the end of the process when it fails
//	vfs.go      the disk: only a full disk is waited for; a failed sync is final (style rule 19); no WAL preallocation
//	space.go    Full: the free-space reserve at which produce is refused
//
// What is deleted stays in the write-ahead log and the files for a while: bytes written per byte in are about
// 1 + min(1, W/M), where W is what is not trimmed yet and M is Options.MemTableBytes. Recovery after kill -9 is the replay of
// the write-ahead log: one to two memtables, at most four where flushes do not keep up.
package hot
