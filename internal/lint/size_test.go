package lint

import (
	"bufio"
	"flag"
	"fmt"
	"go/ast"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// The limits, in lines. Tests may be twice as long: a table of cases is read as a table.
const (
	maxFileLines     = 500
	maxFunctionLines = 70
	testFactor       = 2
)

const allowFile = "testdata/size_allow.txt"

var rewrite = flag.Bool("rewrite", false, "lower "+allowFile+" to the sizes of today (it never adds a line)")

// What is too long must be in the allow-list with at least its length; an entry that is larger than it need be is an
// error too, so that the list only shrinks. A new long file or function is split, not listed.
func TestSizes(t *testing.T) {
	allow, err := readAllow()
	if err != nil {
		t.Fatal(err)
	}
	long := tooLong(tree(t))
	for _, name := range sortedKeys(long) {
		if have, listed := long[name], allow[name]; have > listed {
			t.Errorf("%s has %d lines (allowed: %d): split it", name, have, max(listed, limitOf(name)))
		}
	}
	kept := map[string]int{}
	for _, name := range sortedKeys(allow) {
		if have := long[name]; have < allow[name] && !*rewrite {
			t.Errorf("%s is listed with %d lines and has %d: run go test ./internal/lint -run TestSizes -rewrite", name, allow[name], have)
		}
		if have := min(long[name], allow[name]); have > 0 {
			kept[name] = have
		}
	}
	if *rewrite {
		if err := writeAllow(kept); err != nil {
			t.Fatal(err)
		}
	}
}

// tooLong answers "path" or "path function" with its number of lines.
func tooLong(files []*source) map[string]int {
	out := map[string]int{}
	for _, s := range files {
		if s.lines > limitOf(s.path) {
			out[s.path] = s.lines
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || isTable(f) {
				continue
			}
			name := s.path + " " + functionName(f)
			n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if n > limitOf(name) {
				out[name] = n
			}
		}
	}
	return out
}

// isTable reports whether a function does nothing but return a literal: a table is as long as it has rows.
func isTable(f *ast.FuncDecl) bool {
	if len(f.Body.List) != 1 {
		return false
	}
	ret, ok := f.Body.List[0].(*ast.ReturnStmt)
	if !ok || len(ret.Results) != 1 {
		return false
	}
	_, ok = ret.Results[0].(*ast.CompositeLit)
	return ok
}

func limitOf(name string) int {
	file, _, isFunction := strings.Cut(name, " ")
	n := maxFileLines
	if isFunction {
		n = maxFunctionLines
	}
	if strings.HasSuffix(file, "_test.go") {
		n *= testFactor
	}
	return n
}

func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	typ := f.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
}

func readAllow() (map[string]int, error) {
	f, err := os.Open(allowFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]int{}
	for in := bufio.NewScanner(f); in.Scan(); {
		line := in.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		count, name, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(count)
		if err != nil || name == "" {
			return nil, fmt.Errorf("%s: line %q: want LINES PATH [FUNCTION]", allowFile, line)
		}
		out[name] = n
	}
	return out, nil
}

func writeAllow(kept map[string]int) error {
	var b strings.Builder
	b.WriteString("# Files and functions beyond the limits of internal/lint: LINES PATH [FUNCTION]. This list only shrinks.\n")
	for _, name := range sortedKeys(kept) {
		fmt.Fprintf(&b, "%d %s\n", kept[name], name)
	}
	return os.WriteFile(allowFile, []byte(b.String()), 0o644)
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
