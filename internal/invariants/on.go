//go:build invariants || race

package invariants

import "fmt"

// Enabled reports whether assertions are compiled in.
const Enabled = true

// Assert panics with the message when cond is false: a bug, never an expected condition.
func Assert(cond bool, format string, args ...any) {
	if !cond {
		panic(fmt.Sprintf("invariant violated: "+format, args...))
	}
}
