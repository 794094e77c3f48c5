package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

const (
	sessionPatience = 6 * time.Minute
	stopGrace       = 10 * time.Second
	lineLimit       = 4 << 20
)

// restart is what happens to the broker at one HALF.
type restart struct {
	signal syscall.Signal
	busy   bool // the client goes on before the broker is gone
}

var restarts = []restart{
	{syscall.SIGKILL, false}, {syscall.SIGTERM, false}, {syscall.SIGKILL, true}, {syscall.SIGTERM, true},
}

// session is one client against one broker of its own.
type session struct {
	client  client
	node    *proc.Node
	dir     string
	records int // per topic and round
	random  *rand.Rand
	came    *arrivals
	claimed int // what OK said
}

// result is a line of the table.
type result struct {
	name, version        string
	records, redelivered int
	took                 time.Duration
	err                  error
}

// run starts broker and client, goes through the rounds, and checks all that came.
func (s *session) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	s.node.Sets = []string{"group.initial.rebalance.delay.ms=0", "auto.create.topics.enable=false"}
	if err := s.up(ctx); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.node.End(syscall.SIGTERM), s.node.Close(), os.RemoveAll(filepath.Join(s.node.Dir, "data")))
	}()
	prefix := "roundtrip-" + s.client.name
	s.came = newArrivals(s.client.shape, prefix)
	if err := s.converse(ctx, prefix); err != nil {
		return err
	}
	return s.verify(ctx, prefix)
}

func (s *session) up(ctx context.Context) error {
	if err := s.node.Start(); err != nil {
		return err
	}
	return s.node.Ready(ctx)
}

// converse runs the client's program to its end.
func (s *session) converse(ctx context.Context, prefix string) error {
	rounds := len(restarts) + 1
	args := append(s.client.command[1:], s.node.Kafka, prefix, strconv.Itoa(rounds), strconv.Itoa(s.records))
	cmd := exec.CommandContext(ctx, s.client.command[0], args...)
	cmd.Env = append(os.Environ(), s.client.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the tools have children
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	stderr, err := os.Create(filepath.Join(s.dir, "client.log"))
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the client: %w", err)
	}
	talk := s.listen(ctx, out, in)
	if talk != nil {
		_ = cmd.Cancel() // the conversation is over, whatever it answers
	}
	if err := cmd.Wait(); err != nil {
		return errors.Join(talk, fmt.Errorf("the client ended with %w: %s", err, tail(stderr.Name())))
	}
	return talk
}

// listen follows the client's lines until the last one.
func (s *session) listen(ctx context.Context, out io.Reader, in io.Writer) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, lineLimit)
	halves, ended := 0, false
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "R "):
			p, c, err := parse(line)
			if err != nil {
				return err
			}
			s.came.add(p, c)
		case line == "HALF":
			if halves == len(restarts) {
				return errors.New("one HALF too many")
			}
			if err := s.restart(ctx, restarts[halves], in); err != nil {
				return fmt.Errorf("restart %d: %w", halves+1, err)
			}
			halves++
		case strings.HasPrefix(line, "OK records="):
			n, err := strconv.Atoi(strings.TrimPrefix(line, "OK records="))
			if err != nil {
				return err
			}
			s.claimed, ended = n, true
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read from the client: %w", err)
	}
	if !ended || halves != len(restarts) {
		return fmt.Errorf("the client ended after %d of %d rounds", halves+1, len(restarts)+1)
	}
	return nil
}

// restart ends the broker, starts it again on the same ports and data, and lets the client go on: afterwards, or before.
func (s *session) restart(ctx context.Context, r restart, in io.Writer) error {
	if r.busy {
		if _, err := io.WriteString(in, "\n"); err != nil {
			return err
		}
		time.Sleep(time.Duration(s.random.IntN(100)) * time.Millisecond) // somewhere in the client's round
	}
	if err := s.node.End(r.signal); err != nil && r.signal != syscall.SIGKILL {
		return fmt.Errorf("end the broker: %w", err)
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	if !r.busy {
		_, err := io.WriteString(in, "\n")
		return err
	}
	return nil
}

// verify judges what the client was given and what a third party reads.
func (s *session) verify(ctx context.Context, prefix string) error {
	if s.client.shape == counted {
		return nil // the program has counted
	}
	count := (len(restarts) + 1) * s.records
	var faults []string
	if s.claimed != len(s.came.at) {
		faults = append(faults, fmt.Sprintf("the client says that %d records came, %d were shown", s.claimed, len(s.came.at)))
	}
	faults = append(faults, s.came.judge(count)...)
	stored, err := readBack(ctx, s.node.Kafka, prefix, s.client.shape)
	if err != nil {
		return err
	}
	for _, f := range stored.judge(count) {
		faults = append(faults, "read back: "+f)
	}
	behind, err := uncommitted(ctx, s.node.Kafka, prefix)
	if err != nil {
		return err
	}
	faults = append(faults, behind...)
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "\n"))
	}
	return nil
}

// tail is the end of a log, for an error message.
func tail(path string) string {
	const limit = 1500
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(len(b)-limit, 0):]))
}
