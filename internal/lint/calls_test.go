package lint

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// banned names functions that go around a seam, and the folders that are the seam or stand outside of it.
var banned = []struct {
	pkg   string
	names []string // empty: all of the package
	homes []string
	why   string
}{
	{"time", []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
		[]string{"internal/clock", "cmd", "test", "client", "objstore/s3"}, // s3: the watchdog of a stalled download
		"take the clock from Options"},
	{"math/rand", nil, []string{"cmd", "test"}, "take randomness from Options"},
	{"math/rand/v2", unseeded, []string{"broker", "cmd", "test", "objstore/retry"}, // retry: the default of its Options.Rand
		"take randomness from Options"},
	{"os", []string{"Exit"}, []string{"cmd", "test", "ingest/hot"}, "return an error; only main ends the process (and the hot store, where a sync failed)"},
	{"log", nil, nil, "log with the slog.Logger of Options"},
	{"net", []string{"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix"}, []string{"broker", "cmd", "test"}, "dial through the network seam"},
	{"log/slog", []string{"Debug", "Info", "Warn", "Error", "Log", "LogAttrs", "SetDefault"}, []string{"cmd"}, "log with the slog.Logger of Options"},
}

// unseeded are the functions of math/rand/v2 whose outcome no seed repeats; a generator with a seed of its own is a seam.
var unseeded = []string{"ExpFloat64", "Float32", "Float64", "Int", "Int32", "Int32N", "Int64", "Int64N", "IntN", "N", "NormFloat64", "Perm", "Shuffle", "Uint", "Uint32", "Uint32N", "Uint64", "Uint64N", "UintN"}

func TestBannedCalls(t *testing.T) {
	for _, s := range tree(t) {
		if s.test || forTests(s.dir) {
			continue
		}
		for _, use := range qualified(s) {
			for _, b := range banned {
				if use.path == b.pkg && has(b.names, use.name) && !below(s.dir, b.homes) {
					t.Errorf("%s: %s.%s: %s", s.at(use.pos), b.pkg, use.name, b.why)
				}
			}
		}
	}
}

// A test that sleeps is flaky, slow, or both: wait on a condition, or move the clock. Sleeping is allowed where time is not
// real (testing/synctest), and for the one millisecond between two looks at a condition.
func TestNoSleepInTests(t *testing.T) {
	for _, s := range tree(t) {
		if !s.test || slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if ok && isSelector(call.Fun, "time", "Sleep") && !isSelector(call.Args[0], "time", "Millisecond") {
				t.Errorf("%s: time.Sleep in a test", s.at(call.Pos()))
			}
			return true
		})
	}
}

func isSelector(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

func has(names []string, name string) bool {
	if len(names) == 0 {
		return ast.IsExported(name)
	}
	return slices.Contains(names, name)
}

// use is one mention of pkg.Name.
type use struct {
	path, name string
	pos        token.Pos
}

// qualified lists the mentions of other packages' names in a file. A local variable that shadows a package's name may be
// taken for it: give the variable another name, readers would stumble too.
func qualified(s *source) []use {
	byName := map[string]string{}
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if strings.HasPrefix(name, "v") && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(p)) // a major version is no name
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		byName[name] = p
	}
	var out []use
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok && byName[id.Name] != "" {
			out = append(out, use{byName[id.Name], sel.Sel.Name, sel.Pos()})
		}
		return true
	})
	return out
}
