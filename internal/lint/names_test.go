package lint

import (
	"go/ast"
	"path"
	"strings"
	"testing"
)

// Every package says what it owns: one file, doc.go where the package is more than one file, carries the comment.
func TestEveryPackageHasAComment(t *testing.T) {
	comment, names := map[string]string{}, map[string]string{}
	for _, s := range tree(t) {
		if s.test {
			continue
		}
		names[s.dir] = s.ast.Name.Name
		if s.ast.Doc == nil {
			continue
		}
		// Files of other build tags may repeat it.
		if first := comment[s.dir]; first == "" || len(s.ast.Doc.Text()) > len(first) {
			comment[s.dir] = s.ast.Doc.Text()
		}
	}
	for dir, name := range names {
		want := "Package " + name + " "
		if name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(comment[dir], want) {
			t.Errorf("%s: the package comment should begin with %q (in doc.go)", dir, want)
		}
	}
}

// A file's name is a noun of this domain. These are drawers.
func TestNoDrawers(t *testing.T) {
	for _, s := range tree(t) {
		for _, word := range strings.FieldsFunc(s.path, func(r rune) bool { return r == '/' || r == '_' || r == '.' }) {
			switch strings.TrimSuffix(word, "s") {
			case "util", "helper", "manager", "common", "misc":
				t.Errorf("%s: %q says nothing: name what it holds", s.path, word)
			}
		}
	}
}

// Nothing happens because a package was imported: registration is a table.
func TestNoInit(t *testing.T) {
	for _, s := range tree(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init: make it a function that somebody calls", s.at(f.Pos()))
			}
		}
	}
}

// Every goroutine has an owner that waits for it: service.Group, or a sync.WaitGroup's Go where it ends within a call. The rare
// exception says on its line what ends it.
func TestNoNakedGoroutine(t *testing.T) {
	for _, s := range tree(t) {
		if s.test || forTests(s.dir) || below(s.dir, []string{"internal/service", "test"}) {
			continue
		}
		explained := map[int]bool{}
		for _, group := range s.ast.Comments {
			explained[s.fset.Position(group.Pos()).Line] = true
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok && !explained[s.fset.Position(g.Pos()).Line] {
				t.Errorf("%s: naked go: start it with service.Group, which waits for it, or say what ends it", s.at(g.Pos()))
			}
			return true
		})
	}
}
