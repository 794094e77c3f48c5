// Command demo does Varve's main job from outside and to its end, on real input and with a client that is not ours
// (franz-go): it starts a broker on an empty folder, produces every line of the Go distribution's sources (key = file), waits
// until the broker has sealed them, offloaded them to its bucket and trimmed them from its disk, reads all of it back from the
// first offset, compares, looks timestamps up where they are hot and where they are cold, has the bucket checked, and stops
// the broker. It exits 0 only where all of that held. `make demo` runs it.
//
//	main.go     the steps
//	input.go    the lines
//	produce.go  produce, and what must come back
//	verify.go   read back and compare
//	tiers.go    what `varve topic describe` says about where the records are
package main
