package history

import (
	"fmt"
	"sync"
)

// Kind is what is wrong.
type Kind string

// The anomalies. All but the last three are broken promises whatever happens to a cluster; those three mean that a client waited in vain.
const (
	LostWrite          Kind = "lost write"          // acknowledged or read once, and not there
	Duplicate          Kind = "duplicate"           // one send, two offsets
	Reordered          Kind = "reordered"           // a producer's records stand in another order than it sent them
	InconsistentOffset Kind = "inconsistent offset" // two looks at one offset differ, or an acknowledgement and a look
	NonMonotonicPoll   Kind = "non-monotonic poll"  // a reader was led back
	SkippedPoll        Kind = "skipped poll"        // a reader was led past records
	NonMonotonicSend   Kind = "non-monotonic send"  // a later send was acknowledged at a lower offset
	Damaged            Kind = "damaged"             // other bytes than any producer sent
	Invented           Kind = "invented"            // a record or a commit that nobody sent
	ReportedLoss       Kind = "reported loss"       // a reader was told that its offset is gone
	CommitBack         Kind = "commit went back"    // a group's committed offset is lower than one that was confirmed before
	CommitBeyond       Kind = "commit beyond"       // a group's committed offset is higher than what it read
	GroupSkipped       Kind = "group skipped"       // a group never got records below what it read

	FailedSend Kind = "failed send" // a producer that retries for ever gave up
	Unanswered Kind = "unanswered"  // neither acknowledged nor failed in the end
	Unread     Kind = "unread"      // a reader did not get to the end
)

// maxOfKind bounds how many anomalies of one kind are kept; all are counted.
const maxOfKind = 20

// Anomaly is one thing that cannot be.
type Anomaly struct {
	Kind      Kind   `json:"kind"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // -1: unknown
	Text      string `json:"text"`
}

func (a Anomaly) String() string {
	return fmt.Sprintf("%s: partition %d offset %d: %s", a.Kind, a.Partition, a.Offset, a.Text)
}

// History is of one topic. Its methods may be called from any goroutine.
type History struct {
	mu struct {
		sync.Mutex
		parts     []part
		looks     []*Look
		anomalies []Anomaly
		counts    map[Kind]int
		acked     int
	}
}

// part is what producers know of a partition.
type part struct {
	producers map[uint32]*sends
}

// sends are one producer's: by sequence, what became of each.
type sends struct {
	offsets []int64 // unanswered, failed, unknownOffset, or where it was acknowledged
	at      []int64 // where the final look found it; absent
}

const (
	unknownOffset = -1 // acknowledged as a duplicate of a batch so old that the broker does not know its offset
	unanswered    = -2
	failed        = -3
	absent        = -1
)

// New returns the history of a topic that nobody has written to.
func New(partitions int) *History {
	h := &History{}
	h.mu.parts = make([]part, partitions)
	h.mu.counts = map[Kind]int{}
	for i := range h.mu.parts {
		h.mu.parts[i].producers = map[uint32]*sends{}
	}
	return h
}

// Send is called before each record is sent, in the order of the sends, and chooses its sequence.
func (h *History) Send(partition int32, producer uint32) Value {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.mu.parts[partition].producers
	if p[producer] == nil {
		p[producer] = &sends{}
	}
	s := p[producer]
	s.offsets = append(s.offsets, unanswered)
	return Value{producer, uint32(len(s.offsets) - 1)}
}

// Done is the answer to a send: the offset of its acknowledgement (-1: it is known to be there), or an error, after which it may be
// there or not.
func (h *History) Done(partition int32, v Value, offset int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.mu.parts[partition].producers[v.Producer]
	if err != nil {
		s.offsets[v.Seq] = failed
		h.note(FailedSend, partition, -1, "producer %d sequence %d: %v", v.Producer, v.Seq, err)
		return
	}
	s.offsets[v.Seq] = max(offset, unknownOffset)
	h.mu.acked++
}

// Acked is how many sends were acknowledged.
func (h *History) Acked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.acked
}

// Note adds an anomaly that a client was told of.
func (h *History) Note(kind Kind, partition int32, offset int64, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(kind, partition, offset, format, args...)
}

func (h *History) note(kind Kind, partition int32, offset int64, format string, args ...any) {
	if h.mu.counts[kind]++; h.mu.counts[kind] <= maxOfKind {
		h.mu.anomalies = append(h.mu.anomalies, Anomaly{kind, partition, offset, fmt.Sprintf(format, args...)})
	}
}

// Anomalies are those found so far, at most twenty of each kind, and how many of each kind there are.
func (h *History) Anomalies() ([]Anomaly, map[Kind]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := map[Kind]int{}
	for k, n := range h.mu.counts {
		counts[k] = n
	}
	return append([]Anomaly{}, h.mu.anomalies...), counts
}

// Check holds the final look, which has read everything from offset 0, against all acknowledgements and against every other look. It is
// called once, when nobody sends or reads any more.
func (h *History) Check(final *Look) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.mu.parts {
		h.place(int32(p), final.parts[p].seen)
		h.settle(int32(p), final.parts[p].seen)
		for _, l := range h.mu.looks {
			if l != final {
				h.differ(int32(p), l, final)
			}
		}
	}
}

// place walks the log in the order of offsets and finds what is there twice, out of order, or from nowhere.
func (h *History) place(p int32, log []entry) {
	for _, s := range h.mu.parts[p].producers {
		s.at = make([]int64, len(s.offsets))
		for i := range s.at {
			s.at[i] = absent
		}
	}
	highest := map[uint32]uint32{} // by producer, the sequence after the highest
	for _, e := range log {
		if e.damaged {
			continue // noted when it was read
		}
		s := h.mu.parts[p].producers[e.Producer]
		switch {
		case s == nil || int(e.Seq) >= len(s.at):
			h.note(Invented, p, e.offset, "producer %d sequence %d was never sent", e.Producer, e.Seq)
			continue
		case s.at[e.Seq] != absent:
			h.note(Duplicate, p, e.offset, "producer %d sequence %d stands at offset %d too", e.Producer, e.Seq, s.at[e.Seq])
			continue
		case e.Seq < highest[e.Producer]:
			h.note(Reordered, p, e.offset, "producer %d: sequence %d stands behind %d", e.Producer, e.Seq, highest[e.Producer]-1)
		}
		s.at[e.Seq] = e.offset
		highest[e.Producer] = max(highest[e.Producer], e.Seq+1)
	}
}

// settle finds what became of every send.
func (h *History) settle(p int32, log []entry) {
	for id, s := range h.mu.parts[p].producers {
		last := int64(-1)
		for seq, acked := range s.offsets {
			found := s.at[seq]
			switch {
			case acked == unanswered:
				h.note(Unanswered, p, found, "producer %d sequence %d", id, seq)
			case acked == failed:
			case found == absent:
				h.note(LostWrite, p, acked, "producer %d sequence %d was acknowledged%s", id, seq, instead(log, acked))
			case acked >= 0 && acked != found:
				h.note(InconsistentOffset, p, acked, "producer %d sequence %d was acknowledged here and stands at offset %d", id, seq, found)
			}
			if acked < 0 {
				continue
			}
			if acked <= last {
				h.note(NonMonotonicSend, p, acked, "producer %d: sequence %d was acknowledged here, the one before it at %d", id, seq, last)
			}
			last = acked
		}
	}
}

// instead says what stands at an offset.
func instead(log []entry, offset int64) string {
	e, found := at(log, offset)
	if !found {
		return ", and nothing stands there"
	}
	return fmt.Sprintf(", and producer %d sequence %d stands there", e.Producer, e.Seq)
}
