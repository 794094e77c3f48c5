// Package script runs tests that are text: a line is a command, and what stands below it, indented by two spaces, is its full
// trace. Lines that are empty or begin with # are comments.
package script

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the traces of testdata/*.txt anew")

// Test calls play with each testdata/*.txt and compares the script that it returns, with the traces of this run, to the file. A
// difference fails the test; -rewrite accepts it.
func Test(t *testing.T, play func(t *testing.T, script string) string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("trace differs (-rewrite accepts it):\n%s", got)
			}
		})
	}
}

// Play copies a script to out without its old traces, and calls command for each line that is one: it writes the new trace.
func Play(script string, out *strings.Builder, command func(line string)) {
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue // the old trace
		}
		out.WriteString(line + "\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			command(line)
		}
	}
}
