package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	f := func(out string, want score, wantErr bool) {
		t.Helper()
		var s score
		if err := s.parse(strings.NewReader(out)); (err != nil) != wantErr {
			t.Errorf("%q: %v", out, err)
		}
		if s.passed != want.passed || s.failed != want.failed || s.reference != want.reference || strings.Join(s.failures, ";") != strings.Join(want.failures, ";") {
			t.Errorf("%q: %+v, want %+v", out, s, want)
		}
	}
	f("kcat: passed 14, failed 0, reference 14\n", score{passed: 14, reference: 14}, false)
	f("FAIL group\nnoise\nkcat: passed 13, failed 1, reference 14", score{passed: 13, failed: 1, reference: 14, failures: []string{"FAIL group"}}, false)
	f("--- FAIL: TestX (0.1s)\n    --- FAIL: TestX/y\nfranz-go: passed 1, failed 2, reference 144\n",
		score{passed: 1, failed: 2, reference: 144, failures: []string{"--- FAIL: TestX (0.1s)", "--- FAIL: TestX/y"}}, false)
	f("kcat: module not available\n", score{}, true)
	f("", score{}, true)
}

func TestReached(t *testing.T) {
	f := func(s score, want bool) {
		t.Helper()
		if s.reached() != want {
			t.Errorf("%+v", s)
		}
	}
	f(score{name: "other", passed: 14, reference: 14}, true)
	f(score{name: "other", passed: 15, reference: 14}, true)
	f(score{name: "other", passed: 13, reference: 14}, false)
	f(score{name: "other", passed: 14, failed: 1, reference: 14}, false)
	f(score{name: "kcat", passed: 13, reference: 14}, true)
	f(score{name: "kcat", passed: 12, reference: 14}, false)
	f(score{name: "kcat", passed: 14, failed: 1, reference: 14}, false)
}

// A script that hangs is ended, with the children that it has started.
func TestRunEndsAHangingScript(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hang.sh")
	if err := os.WriteFile(path, []byte("sleep 1000 & echo started; wait\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s := run(t.Context(), path, "127.0.0.1:1", 200*time.Millisecond, &log)
	if s.err == nil || s.name != "hang" {
		t.Errorf("%+v", s)
	}
}

func TestRunPassesTheBroker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "echo.sh")
	if err := os.WriteFile(path, []byte("echo FAIL $1\necho echo: passed 2, failed 1, reference 3\nexit 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s := run(t.Context(), path, "h:1", time.Minute, &log)
	if s.err != nil || s.passed != 2 || s.failures[0] != "FAIL h:1" || !strings.Contains(log.String(), "FAIL h:1") {
		t.Errorf("%+v, log %q", s, log.String())
	}
}
