package record

import "runtime"

// gate bounds what decompression holds in memory, whoever asks for it (I10): so many batches at a time as there are processors
// to work on them, twice, and one of those that need more than pooledSize each. A batch of a few KB may ask for a window of 128 MiB,
// or come to 100 MiB; without a bound a few dozen connections that send such would take gigabytes.
type gate struct {
	usual chan struct{} // a token per batch that is being decompressed
	large chan struct{} // the same, of the large ones: they have no token of the others while they wait
}

var decompressions = gate{usual: make(chan struct{}, max(4, 2*runtime.GOMAXPROCS(0))), large: make(chan struct{}, 1)}

// Decompressions is how many batches are being decompressed now, how many may be, and how many of them may be large.
func Decompressions() (now, limit, large int) {
	g := &decompressions
	return len(g.usual) + len(g.large), cap(g.usual), cap(g.large)
}

// hold is one batch's place in the gate.
type hold struct {
	g       *gate
	isLarge bool
}

// enter waits for a place; leave gives it back. Who has one must not enter again.
func (g *gate) enter() *hold {
	g.usual <- struct{}{}
	return &hold{g: g}
}

// enlarge waits for the place of a large batch.
func (h *hold) enlarge() {
	if h.isLarge {
		return
	}
	<-h.g.usual
	h.g.large <- struct{}{}
	h.isLarge = true
}

func (h *hold) leave() {
	if h.isLarge {
		<-h.g.large
		return
	}
	<-h.g.usual
}
