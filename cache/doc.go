// Package cache keeps blocks of immutable remote objects in memory and on local disk: objstore.Reader in, ranges out.
//
// The way of a read, with the file of each step:
//
//	1 cache.go      ReadAt splits the range into blocks of Options.BlockBytes
//	2 memory.go     a block in memory is answered at once
//	3 flight.go     else the block has one flight, whoever asks and whoever gives up waiting
//	4 disk.go       the flight reads the block from disk, where it is and its checksum holds (block.go)
//	5 reserve.go    else it reserves space in both tiers, evicting what fifo.go chooses,
//	6 flight.go     downloads the block, and hands it to the readers, to memory and to disk
//
// readahead.go starts flights that nobody waits for yet.
//
// What it never does: decide what to read (package tiering does), or trust the disk: a damaged, torn or missing block is a
// miss. Objects never change and names are never reused (I6), so nothing is ever invalidated; Drop only frees space early.
//
// Limits (I10): memory holds at most MemoryBytes of blocks, reservations of running flights included. A block that finds no
// room is still served, from its flight alone: at most MaxDownloads blocks at a time from the bucket and as many from disk. Disk
// holds at most DiskBytes, reserved before the download. Read-ahead has at most ReadAheadBytes under way and half of the downloads.
//
// Locks: Cache.mu guards both indexes, the flights and the reservations. It is never held across I/O.
package cache
