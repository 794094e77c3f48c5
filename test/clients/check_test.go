package main

import (
	"fmt"
	"strings"
	"testing"
)

// good is a run without fault: 100 records in each topic, all records of a key in one partition.
func good(s shape) *arrivals {
	a := newArrivals(s, "p")
	for _, codec := range codecs {
		ends := map[int32]int64{}
		for i := range 100 {
			partition := int32(i % 17 % 3)
			a.add(position{"p-" + codec, partition, ends[partition]}, expected(s, codec, i))
			ends[partition]++
		}
	}
	return a
}

func TestJudgeAcceptsWhatIsRight(t *testing.T) {
	for _, s := range []shape{full, noNulls, text, oneLabel} {
		if faults := good(s).judge(100); len(faults) > 0 {
			t.Errorf("shape %d: %v", s, faults)
		}
	}
}

func TestJudgeFinds(t *testing.T) {
	f := func(what, want string, spoil func(a *arrivals)) {
		t.Helper()
		a := good(full)
		spoil(a)
		if faults := strings.Join(a.judge(100), "\n"); !strings.Contains(faults, want) {
			t.Errorf("%s: want %q in\n%s", what, want, faults)
		}
	}
	at := position{"p-gzip", 0, 3}
	f("a lost record", "of gzip is lost", func(a *arrivals) { delete(a.at, at) })
	f("a record that stands twice", "is in the log twice", func(a *arrivals) { a.add(position{"p-gzip", 0, 1000}, a.at[at]) })
	f("another value", "want key", func(a *arrivals) { c := a.at[at]; c.value = []byte("gzip-1-x"); a.at[at] = c })
	f("an empty header instead of a null one", "null=null", func(a *arrivals) {
		c := a.at[at]
		c.headers = append(c.headers[:3:3], header{"null", []byte{}})
		a.at[at] = c
	})
	f("a header that is missing", "want key", func(a *arrivals) { c := a.at[at]; c.headers = c.headers[:3]; a.at[at] = c })
	f("two records of a key in the wrong order", "stands after record", func(a *arrivals) {
		first, second := position{"p-lz4", 0, 0}, position{"p-lz4", 0, 6} // records 0 and 17: the same key
		a.at[first], a.at[second] = a.at[second], a.at[first]
	})
	f("the same offset with another record", "came as", func(a *arrivals) { a.add(at, expected(full, "gzip", 99)) })
	f("a delivery behind the newest one", "came for the first time after", func(a *arrivals) {
		c := a.at[at]
		delete(a.at, at)
		a.add(at, c)
	})
	f("a topic of somebody else", "nobody asked for", func(a *arrivals) { a.add(position{"other", 0, 0}, expected(full, "gzip", 0)) })
}

func TestParse(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		p, c, err := parse(line)
		got := fmt.Sprint(p, " ", c)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	f("R t 1 7 x6b - seq=x31,empty=x,null=-", `{t 1 7} key "k" value null headers seq="1" empty="" null=null`)
	f("R t 1 7 - x76", `{t 1 7} key null value "v" headers`)
	f("R t one 7 - x76", "partition:")
	f("R t 1 - x76", "5 fields")
	f("R t 1 7 6b -", "neither - nor xHEX")
}
