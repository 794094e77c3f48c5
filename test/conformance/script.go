package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	err                       error  // it did not run to its end
	before                    *score // the first try, where this is the second
}

// expected is how many cases must pass: the reference without what is left out.
func (s score) expected() int { return s.reference - len(exclusions(s.name)) }

// reached reports whether the script passed what it must, and nothing failed.
func (s score) reached() bool { return s.err == nil && s.failed == 0 && s.passed >= s.expected() }

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
