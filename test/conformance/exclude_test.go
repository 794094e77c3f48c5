package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWithoutExcluded: the copy has every other case, and a script that has changed is refused.
func TestWithoutExcluded(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "kcat.sh")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("ok group       \"x\"\nok transaction \"y\"\necho transaction\n")
	copied, err := withoutExcluded(path, out)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(copied)
	if err != nil || string(got) != "ok group       \"x\"\necho transaction\n" {
		t.Errorf("copy: %q, %v", got, err)
	}
	write("ok group \"x\"\n")
	if _, err := withoutExcluded(path, out); err == nil || !strings.Contains(err.Error(), "ok transaction") {
		t.Errorf("a script without the case: %v", err)
	}
}

// TestQuickSet: librdkafka's quick set holds none of the excluded cases.
func TestQuickSet(t *testing.T) {
	t.Setenv("QUICKSET", "")
	if n := len(exclusions("librdkafka")); n != 3 {
		t.Errorf("in full: %d", n)
	}
	t.Setenv("QUICKSET", "1")
	if n := len(exclusions("librdkafka")); n != 0 {
		t.Errorf("quick: %d", n)
	}
	if n := len(exclusions("kcat")); n != 1 {
		t.Errorf("kcat: %d", n)
	}
}

// TestExcludedAreListed: the table in docs/conformance.md is that of excluded.
func TestExcludedAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, line := range strings.Split(string(page), "\n") {
		if strings.HasPrefix(line, "| ") && strings.Contains(line, "`") {
			rows++
		}
	}
	if rows != len(excluded()) {
		t.Errorf("%d rows, %d excluded cases", rows, len(excluded()))
	}
	for _, e := range excluded() {
		if row := fmt.Sprintf("| %s | `%s` | %s |", e.suite, e.name, e.reason); !strings.Contains(string(page), row+"\n") {
			t.Errorf("not there: %s", row)
		}
	}
}
