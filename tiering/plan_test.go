package tiering

import (
	"fmt"
	"strings"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

func TestPlan(t *testing.T) {
	f := func(want string, sizes ...int64) {
		t.Helper()
		var ranges []SealedRange
		for i, n := range sizes {
			ranges = append(ranges, SealedRange{Log: base.LogID(1 + i%3), Base: base.Offset(i), Bytes: n})
		}
		var got []string
		for _, j := range plan(ranges, 10, 36, 40, func(n Name) string { return n.Kind.String() }) {
			var in []string
			for _, r := range j.ranges {
				in = append(in, fmt.Sprintf("%d@%d", r.Bytes, r.Log))
			}
			got = append(got, fmt.Sprintf("%s in %d %s", strings.Join(in, "+"), len(j.names), j.names[0]))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%v\ngot  %s\nwant %s", sizes, s, want)
		}
	}
	f("")
	f("5@1 in 1 segment", 5)
	f("10@1 in 1 segment", 10)
	f("5@1+6@2 in 1 pack", 5, 6)
	f("10@2 in 1 segment, 5@1+7@1+6@3 in 1 pack", 5, 10, 6, 7)
	f("9@1+9@1+9@2+9@2 in 1 pack, 9@3 in 1 segment", 9, 9, 9, 9, 9)
	f("9@1+9@1+9@2+4@2 in 1 pack, 9@3 in 1 segment", 9, 9, 9, 9, 4) // a pack is smaller than an object may be
	f("100@1 in 5 segment", 100)
}
