package history

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// world is a topic of one partition, what its log holds, and one producer's honest run to start from.
type world struct {
	h   *History
	log [][]byte
	rng *rand.Rand
}

func newWorld() *world { return &world{h: New(1), rng: rand.New(rand.NewPCG(1, 2))} }

// send sends, appends and acknowledges n records of a producer.
func (w *world) send(producer uint32, n int) {
	for range n {
		v := w.h.Send(0, producer)
		w.append(v)
		w.h.Done(0, v, int64(len(w.log)-1), nil)
	}
}

func (w *world) append(v Value) { w.log = append(w.log, v.Encode(5, w.rng)) }

// read takes offsets of the log.
func (w *world) read(l *Look, offsets ...int) {
	for _, o := range offsets {
		l.Take(0, int64(o), nil, w.log[o])
	}
}

func upTo(n int) []int {
	var s []int
	for i := range n {
		s = append(s, i)
	}
	return s
}

// finish reads the log as it is and checks it.
func (w *world) finish() {
	final := w.h.Look("final")
	w.read(final, upTo(len(w.log))...)
	w.h.Check(final)
}

// TestCheckerFails tells the checker one lie each: it names what is wrong, and nothing else.
func TestCheckerFails(t *testing.T) {
	f := func(name string, lie func(w *world), want ...Kind) {
		t.Helper()
		w := newWorld()
		w.send(1, 3)
		w.send(2, 3)
		lie(w)
		anomalies, counts := w.h.Anomalies()
		var got []Kind
		for k := range counts {
			got = append(got, k)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q: %v", name, got, want, anomalies)
		}
	}
	f("nothing", func(w *world) {
		tail := w.h.Look("tail")
		w.read(tail, 4, 5)
		tail.Reach([]int64{6}, false)
		w.finish()
	})
	f("the last record is lost", func(w *world) { w.log = w.log[:5]; w.finish() }, LostWrite)
	f("a record is lost and others move up", func(w *world) { w.log = slices.Delete(w.log, 1, 2); w.finish() }, LostWrite, InconsistentOffset)
	f("an acknowledged duplicate of unknown offset is lost", func(w *world) { w.h.Done(0, w.h.Send(0, 1), -1, nil); w.finish() }, LostWrite)
	f("a record is there twice", func(w *world) { w.append(Value{1, 2}); w.finish() }, Duplicate)
	f("two records swap places", func(w *world) { w.log[0], w.log[1] = w.log[1], w.log[0]; w.finish() }, Reordered, InconsistentOffset)
	f("an acknowledgement names another offset", func(w *world) { v := w.h.Send(0, 1); w.append(v); w.h.Done(0, v, 9, nil); w.finish() }, InconsistentOffset)
	f("two sends are acknowledged backwards", func(w *world) {
		a, b := w.h.Send(0, 1), w.h.Send(0, 1)
		w.append(b)
		w.append(a)
		w.h.Done(0, a, 7, nil)
		w.h.Done(0, b, 6, nil)
		w.finish()
	}, NonMonotonicSend, Reordered)
	f("a record comes from nowhere", func(w *world) { w.append(Value{1, 99}); w.append(Value{7, 0}); w.finish() }, Invented)
	f("a byte is damaged", func(w *world) { w.log[2][9]++; w.finish() }, Damaged, LostWrite)
	f("a reader saw what is gone", func(w *world) {
		v := w.h.Send(0, 3)
		w.append(v)
		w.read(w.h.Look("along"), upTo(7)...)
		w.h.Done(0, v, 0, errors.New("gave up"))
		w.log = w.log[:6]
		w.finish()
	}, LostWrite, FailedSend)
	f("a reader saw other bytes", func(w *world) {
		l := w.h.Look("along")
		w.read(l, 0)
		l.Take(0, 1, []byte("other key"), w.log[1])
		w.finish()
	}, InconsistentOffset)
	f("a reader goes back", func(w *world) { w.read(w.h.Look("along"), 0, 1, 2, 1); w.finish() }, NonMonotonicPoll)
	f("a reader goes back and sees another", func(w *world) {
		l := w.h.Look("along")
		w.read(l, 0, 1)
		l.Take(0, 0, nil, w.log[2])
		w.finish()
	}, NonMonotonicPoll, InconsistentOffset)
	f("a reader skips", func(w *world) { w.read(w.h.Look("along"), 0, 2); w.finish() }, SkippedPoll)
	f("a reader skips the beginning", func(w *world) { l := w.h.Look("along"); w.read(l, 1, 2, 3, 4, 5); l.Reach([]int64{6}, true) }, SkippedPoll)
	f("a reader stops early", func(w *world) { l := w.h.Look("along"); w.read(l, 0, 1); l.Reach([]int64{6}, true); w.finish() }, Unread)
	f("a reader is told of a loss", func(w *world) { w.h.Note(ReportedLoss, 0, 3, "offset out of range"); w.finish() }, ReportedLoss)
	f("a producer gave up", func(w *world) { w.h.Done(0, w.h.Send(0, 1), 0, errors.New("no")); w.finish() }, FailedSend)
	f("a send was never answered", func(w *world) { w.h.Send(0, 1); w.finish() }, Unanswered)
}

// TestGroupCheckerFails does the same with a group of which member a has read and committed up to 3.
func TestGroupCheckerFails(t *testing.T) {
	f := func(name string, lie func(g *Group), want ...Kind) {
		t.Helper()
		h := New(1)
		g := h.Group()
		g.Assigned("a", 0)
		polls(g, "a", 0, 1, 2)
		g.Attempt(0, 3)
		g.Confirmed(0, 3)
		lie(g)
		anomalies, counts := h.Anomalies()
		var got []Kind
		for k := range counts {
			got = append(got, k)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q: %v", name, got, want, anomalies)
		}
	}
	handOver := func(g *Group) { g.Revoked("a", 0); g.Assigned("b", 0) }
	f("nothing", func(g *Group) {
		polls(g, "a", 3)
		handOver(g)
		polls(g, "b", 3, 4)
		g.Observed(0, 3, g.Floors()[0], true)
	})
	f("two members at once", func(g *Group) { g.Assigned("b", 0); polls(g, "b", 3, 4); polls(g, "a", 3) })
	f("a commit without an answer is applied late", func(g *Group) {
		g.Attempt(0, 2)
		g.Observed(0, 2, g.Floors()[0], true)
		handOver(g)
		polls(g, "b", 2, 3)
	})
	f("an answer that crossed a commit", func(g *Group) {
		floor := g.Floors()[0]
		polls(g, "a", 3)
		g.Attempt(0, 4)
		g.Confirmed(0, 4)
		g.Observed(0, 3, floor, true)
	})
	f("the next owner begins too early", func(g *Group) { handOver(g); polls(g, "b", 0) }, CommitBack)
	f("the next owner begins at a commit that was overwritten", func(g *Group) {
		polls(g, "a", 3)
		g.Attempt(0, 4)
		g.Confirmed(0, 4)
		handOver(g)
		polls(g, "b", 3)
	}, CommitBack)
	f("the next owner begins where nobody committed", func(g *Group) { polls(g, "a", 3, 4); handOver(g); polls(g, "b", 4) }, Invented)
	f("the next owner begins too late", func(g *Group) { handOver(g); polls(g, "b", 4) }, Invented, GroupSkipped)
	f("a member skips", func(g *Group) { polls(g, "a", 4) }, SkippedPoll, GroupSkipped)
	f("a member goes back", func(g *Group) { polls(g, "a", 2) }, NonMonotonicPoll)
	f("a deposed coordinator answers", func(g *Group) {
		polls(g, "a", 3)
		g.Attempt(0, 4)
		g.Confirmed(0, 4)
		g.Observed(0, 3, g.Floors()[0], false)
		if g.Observed(0, -1, g.Floors()[0], false); g.Stale() != 2 {
			t.Errorf("%d stale answers", g.Stale())
		}
	})
	f("the coordinator forgot", func(g *Group) { g.Observed(0, -1, g.Floors()[0], true) }, CommitBack)
	f("the coordinator knows an old commit", func(g *Group) {
		polls(g, "a", 3)
		g.Attempt(0, 4)
		g.Confirmed(0, 4)
		g.Observed(0, 3, g.Floors()[0], true)
	}, CommitBack)
	f("the coordinator knows a commit of nobody", func(g *Group) { polls(g, "a", 3, 4); g.Observed(0, 4, 3, true) }, Invented)
	f("the group stops early", func(g *Group) {
		g.Reach([]int64{3})
		if g.Reach([]int64{4}); g.Reaches([]int64{4}) || !g.Reaches([]int64{3}) {
			t.Error("Reaches differs from Reach")
		}
	}, Unread)
	f("a commit lies beyond what was read", func(g *Group) { g.Attempt(0, 9); g.Observed(0, 9, 3, true) }, CommitBeyond)
}

func polls(g *Group, member string, offsets ...int64) {
	for _, o := range offsets {
		g.Polled(member, 0, o)
	}
}

func TestManyAnomaliesAreCounted(t *testing.T) {
	h := New(1)
	for range 3 * maxOfKind {
		h.Note(Damaged, 0, 0, "x")
	}
	list, counts := h.Anomalies()
	if len(list) != maxOfKind || counts[Damaged] != 3*maxOfKind {
		t.Errorf("%d are kept, %d counted", len(list), counts[Damaged])
	}
}

func TestValueSurvivesAndDamageShows(t *testing.T) {
	b := Value{3, 4}.Encode(20, rand.New(rand.NewPCG(1, 1)))
	if v, ok := Decode(b); !ok || v != (Value{3, 4}) {
		t.Errorf("decoded %v %v", v, ok)
	}
	for i := range b {
		b[i]++
		if _, ok := Decode(b); ok {
			t.Errorf("a changed byte %d does not show", i)
		}
		b[i]--
	}
	if _, ok := Decode(b[:11]); ok {
		t.Error("11 bytes are a value")
	}
}
