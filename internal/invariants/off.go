//go:build !invariants && !race

// Package invariants holds assertions that the build tag "invariants" (and the race detector) compile in.
package invariants

// Enabled reports whether assertions are compiled in.
const Enabled = false

// Assert does nothing in this build.
func Assert(bool, string, ...any) {}
