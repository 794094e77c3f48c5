package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStalls follows two partitions: a gap counts for the window in which it ends or goes on, also where it began before.
func TestStalls(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	s := newStalls(2)
	for ms := 0; ms <= 100; ms += 10 {
		s.ack(0, at(ms))
		s.ack(1, at(ms))
	}
	want := func(now, ms int) {
		t.Helper()
		if got := s.worst(at(now)); got != time.Duration(ms)*time.Millisecond {
			t.Errorf("at %d ms: longest stall %s, want %d ms", now, got, ms)
		}
	}
	want(100, 10)
	s.mark()
	s.ack(0, at(110))
	want(150, 50) // partition 1 waits
	s.ack(1, at(400))
	want(400, 300) // it has waited 300, partition 0 waits for 290
	s.mark()
	s.ack(0, at(405))
	want(405, 295)
	if got := s.counts(); !slices.Equal(got, []int{13, 12}) {
		t.Errorf("acknowledgements: %d", got)
	}
}

func TestReportSaysNever(t *testing.T) {
	var b strings.Builder
	r := report{Rounds: []round{
		{Case: "pause", Stall: 5, Fresh: -1, Back: 1}, {Case: "pause", Stall: 7, Fresh: 9, Back: 1},
		{Case: "leader", Stall: 3, Fresh: -1, Back: 1}, {Case: "leader", Stall: 8, Fresh: -1, Back: 2}, {Case: "leader", Stall: 4, Fresh: -1, Back: -1},
	}}
	r.print(&b)
	for _, want := range []string{"never: 1", "of 2"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "leader" && (f[1] != "3" || f[2] != "4" || f[3] != "8") {
			t.Errorf("median and maximum of 3, 8, 4: %q", line)
		}
	}
}
