package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/varvelog/varve"

// source is one Go file of the module.
type source struct {
	path  string // from the module's root, with slashes
	dir   string
	test  bool
	lines int
	fset  *token.FileSet
	ast   *ast.File
}

// imports lists the paths that the file imports.
func (s *source) imports() []string {
	var out []string
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		out = append(out, p)
	}
	return out
}

// at shows a position as an editor understands it.
func (s *source) at(pos token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(pos).Line)
}

// root is the module's folder.
const root = "../.."

var parseOnce = sync.OnceValues(parseTree)

// tree parses every Go file of the module, once.
func tree(t *testing.T) []*source {
	t.Helper()
	all, err := parseOnce()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parseTree() ([]*source, error) {
	var all []*source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "node_modules" || n == "bin" || n == "data") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all = append(all, &source{
			path: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
			lines: strings.Count(string(text), "\n"), fset: fset, ast: f,
		})
		return nil
	})
	return all, err
}

// below reports whether dir is one of the folders or lies in one.
func below(dir string, folders []string) bool {
	for _, f := range folders {
		if dir == f || strings.HasPrefix(dir, f+"/") {
			return true
		}
	}
	return false
}

// forTests reports whether a package exists for tests alone: acceptance tests, memory and fault twins of a seam.
func forTests(dir string) bool {
	return strings.HasSuffix(dir, "test") || below(dir, []string{"internal/testutil", "objstore/fault", "coordinator/memlog"})
}

// The rules would all pass on an empty tree.
func TestTreeIsThere(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range tree(t) {
		seen[s.dir] = true
	}
	for _, dir := range []string{"cmd/varve", "internal/lint", "ingest", "record"} {
		if !seen[dir] {
			t.Errorf("no Go file found in %s", dir)
		}
	}
}
