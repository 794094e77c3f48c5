package lint

import (
	"go/ast"
	"go/token"
	"path"
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
		[]string{"internal/clock", "cmd", "test", "client"}, "take the clock from Options"},
	{"math/rand", nil, []string{"cmd", "test"}, "take randomness from Options"},
	{"math/rand/v2", nil, []string{"broker", "cmd", "test"}, "take randomness from Options"},
	{"os", []string{"Exit"}, []string{"cmd", "test", "ingest/hot"}, "return an error; only main ends the process (and the hot store, where a sync failed)"},
	{"log", nil, nil, "log with the slog.Logger of Options"},
	{"net", []string{"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix"}, []string{"broker", "cmd", "test"}, "dial through the network seam"},
	{"log/slog", []string{"Debug", "Info", "Warn", "Error", "Log", "LogAttrs", "SetDefault"}, []string{"cmd"}, "log with the slog.Logger of Options"},
}

func TestBannedCalls(t *testing.T) {
	for _, s := range tree(t) {
		if s.test {
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

// A test that sleeps is flaky, slow, or both: wait on a condition, or move the clock.
func TestNoSleepInTests(t *testing.T) {
	for _, s := range tree(t) {
		if !s.test {
			continue
		}
		for _, use := range qualified(s) {
			if use.path == "time" && use.name == "Sleep" {
				t.Errorf("%s: time.Sleep in a test", s.at(use.pos))
			}
		}
	}
}

func has(names []string, name string) bool {
	if len(names) == 0 {
		return ast.IsExported(name)
	}
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
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
