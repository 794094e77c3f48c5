package sim

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestWrongWall: a wall clock that is wrong does not change what is measured, in a bubble or outside of one.
func TestWrongWall(t *testing.T) {
	check := func(t *testing.T) {
		for _, sec := range []int64{0, 3600, -3600, 6 * 3600, -86400} {
			begin, wall := timeOf(0), time.Now()
			pause(t.Context(), time.Millisecond)
			now := timeOf(sec)
			if d := now.Sub(begin); d < time.Millisecond || d > time.Minute || !now.After(begin) {
				t.Errorf("wrong by %d s: measured %v", sec, d)
			}
			if got := now.UnixMilli() - wall.UnixMilli() - sec*1000; got < 1 || got > 60_000 {
				t.Errorf("wrong by %d s: the wall is wrong by %d ms", sec, got)
			}
			if got := now.Format("15:04"); sec%86400 == 0 && got != time.Now().Format("15:04") {
				t.Errorf("wrong by %d s: shown as %s", sec, got)
			}
		}
	}
	t.Run("real", check)
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, check) })
}
