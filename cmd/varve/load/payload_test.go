package load

import (
	"testing"
	"time"
)

func stamped(t *testing.T, n int) [][]byte {
	t.Helper()
	s, p := NewSequencer(9), newPayloads(100, 1)
	out := make([][]byte, n)
	for i := range out {
		out[i] = p.next()
		s.Stamp(out[i], time.Unix(int64(i), 0))
	}
	return out
}

func TestCheckerTellsWhatWentWrong(t *testing.T) {
	f := func(name string, order []int, change func([][]byte), want Integrity) {
		t.Helper()
		v := stamped(t, 6)
		if change != nil {
			change(v)
		}
		c := NewChecker()
		for i, n := range order {
			_, _ = c.Check(3, int64(i), v[n])
		}
		c.Expect(9, map[int32]int64{3: 6})
		got := c.Report
		got.First = ""
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if clean := want.Lost+want.Duplicates+want.Reordered+want.Damaged == 0; clean != (got.Err() == nil) {
			t.Errorf("%s: Err is %v", name, got.Err())
		}
	}
	f("all in order", []int{0, 1, 2, 3, 4, 5}, nil, Integrity{Records: 6})
	f("first lost", []int{1, 2, 3, 4, 5}, nil, Integrity{Records: 5, Lost: 1})
	f("two lost inside", []int{0, 3, 4, 5}, nil, Integrity{Records: 4, Lost: 2})
	f("tail lost", []int{0, 1, 2}, nil, Integrity{Records: 3, Lost: 3})
	f("everything lost", nil, nil, Integrity{Lost: 6})
	f("one twice", []int{0, 1, 1, 2, 3, 4, 5}, nil, Integrity{Records: 7, Duplicates: 1})
	f("two swapped", []int{0, 2, 1, 3, 4, 5}, nil, Integrity{Records: 6, Reordered: 1})
	f("a byte flipped", []int{0, 1, 2, 3, 4, 5}, func(v [][]byte) { v[5][99] ^= 1 }, Integrity{Records: 6, Damaged: 1, Lost: 1})
	f("foreign record", []int{0, 1, 2, 3, 4, 5}, func(v [][]byte) { v[5] = []byte("hello") }, Integrity{Records: 6, Foreign: 1, Lost: 1})
}

// Two runs in one partition do not disturb each other.
func TestCheckerSeparatesRuns(t *testing.T) {
	c := NewChecker()
	for run := range uint64(2) {
		s, p := NewSequencer(run), newPayloads(HeadSize, run)
		for i := range 10 {
			v := p.next()
			s.Stamp(v, time.Now())
			if _, err := c.Check(0, int64(i), v); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Report.Err(); err != nil {
		t.Error(err)
	}
}

// A record that was never sent, with a valid checksum, does not fit the chain.
func TestCheckerRefusesAForgedRecord(t *testing.T) {
	v := stamped(t, 2)
	forged, p := NewSequencer(9), newPayloads(100, 2)
	first := p.next()
	forged.Stamp(first, time.Unix(77, 0))
	second := p.next()
	forged.Stamp(second, time.Unix(78, 0))
	c := NewChecker()
	_, _ = c.Check(0, 0, v[0])
	_, _ = c.Check(0, 1, second)
	if c.Report.Damaged != 1 {
		t.Errorf("%+v", c.Report)
	}
}

func TestSentTimeComesBack(t *testing.T) {
	sent, err := NewChecker().Check(0, 0, stamped(t, 1)[0])
	if err != nil || !sent.Equal(time.Unix(0, 0)) {
		t.Errorf("%v, %v", sent, err)
	}
}
