package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// score is the outcome of one script.
type score struct {
	name                      string
	passed, failed, reference int
	failures                  []string // lines that name a failed case
	took                      time.Duration
	err                       error // it did not run to its end
}

// reached reports whether the script came to its reference.
func (s score) reached() bool { return s.err == nil && s.failed == 0 && s.passed >= s.reference }

// lacking is what this release has not built yet, by suite: the least that must pass until then, and how the suite is told
// to leave out what would only wait for a time-out. A line goes away when its suite reaches its reference.
type lacking struct {
	suite string
	floor int
	env   []string // NAME=value, where the caller's environment does not set NAME
	what  string
}

func notBuiltYet() []lacking {
	return []lacking{
		{"kcat", 13, nil, "transactions"},
		{"franz-go", 0, []string{"RUN=Test[^T]"}, "transactions, KIP-848 groups"},
		{"java-tools", 0, nil, "transactions, KIP-848 groups, ACLs, quorum and feature commands"},
		{"kafka-python", 0, nil, "transactions, ACLs"},
		{"librdkafka", 0, []string{"QUICKSET=1"}, "transactions"},
		{"streams-smoke", 0, nil, "transactions"},
	}
}

// tolerated reports whether the score is no worse than what this release is known to lack.
func (s score) tolerated() (what string, ok bool) {
	for _, l := range notBuiltYet() {
		if l.suite == s.name {
			return l.what, l.floor > 0 && s.passed >= l.floor
		}
	}
	return "", false
}

var (
	lastLine    = regexp.MustCompile(`^(\S+): passed (\d+), failed (\d+), reference (\d+)`)
	failureLine = regexp.MustCompile(`^\s*(FAIL\b|FAILED\b|ERROR\b|--- FAIL|panic:|\|.*FAILED)`)
)

// run executes a script against a broker. Its output is copied to log.
func run(ctx context.Context, path, broker string, patience time.Duration, log io.Writer) score {
	s := score{name: strings.TrimSuffix(filepath.Base(path), ".sh")}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not finished after %s", patience))
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", path, broker)
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, log)
	cmd.Stderr = cmd.Stdout
	for _, l := range notBuiltYet() {
		if l.suite == s.name {
			cmd.Env = append(cmd.Env, l.env...)
		}
	}
	cmd.Env = append(cmd.Env, os.Environ()...) // the last one wins: the caller's
	// The script's own children end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	s.took = time.Since(began)
	if perr := s.parse(&out); perr != nil {
		s.err = errors.Join(perr, err, context.Cause(ctx))
	}
	return s
}

// parse reads the last line of the known form, and the lines that name failures.
func (s *score) parse(out io.Reader) error {
	found := false
	for in := bufio.NewScanner(out); in.Scan(); {
		line := in.Text()
		if m := lastLine.FindStringSubmatch(line); m != nil {
			found = true
			s.passed, _ = strconv.Atoi(m[2]) // digits, as the pattern says
			s.failed, _ = strconv.Atoi(m[3])
			s.reference, _ = strconv.Atoi(m[4])
		} else if failureLine.MatchString(line) {
			s.failures = append(s.failures, strings.TrimSpace(line))
		}
	}
	if !found {
		return errors.New("ended without a score")
	}
	return nil
}
