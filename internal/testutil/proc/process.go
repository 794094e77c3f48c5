package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is a broker that runs. Its methods may be called from one goroutine.
type Process struct {
	Name      string // "varve", "kafka"
	KafkaAddr string
	HTTPAddr  string // empty where there is none
	Dir       string // its data, and its log in broker.log
	Bucket    string // URL of the object store, where there is one

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait, valid once exited is closed
}

// start runs the command with its output in dir/broker.log. The broker dies with this process: the thread that starts it is locked
// until it has ended, since on Linux the signal that ends a child with its parent comes when the thread that started it ends.
func (p *Process) start(cmd *exec.Cmd) error {
	logFile, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = dieWithParent()
	started, exited := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.exited = cmd, exited
	return nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// LogPath is where the broker's output goes.
func (p *Process) LogPath() string { return filepath.Join(p.Dir, "broker.log") }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// await asks ready every few milliseconds until it answers nil, the process ends, or the time is over; the process then runs on.
func (p *Process) await(ctx context.Context, patience time.Duration, ready func(context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended at its start: %w\n%s", p.Name, p.err, p.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w\n%s", p.Name, time.Since(began).Round(time.Millisecond), err, p.LogTail())
		case <-tick.C:
		}
	}
}

// endUnlessUp ends a process that did not come up.
func (p *Process) endUnlessUp(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, p.Kill())
}

// LogTail is the end of the log, for an error message.
func (p *Process) LogTail() string {
	const lines = 15
	b, err := os.ReadFile(p.LogPath())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}

// dumpTime is how long a process may write all its stacks (SIGQUIT: the Go runtime's and the JVM's).
const dumpTime = 5 * time.Second

// Stop sends SIGTERM and waits for the end; an exit status other than 0, or none within the time, is an error. (A JVM ends
// with 143 after SIGTERM, which counts as 0.)
func (p *Process) Stop(patience time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s has not stopped %s after SIGTERM; what it does is in its log", p.Name, patience), p.dump(), p.Kill())
	}
	var status *exec.ExitError
	if errors.As(p.err, &status) && status.ExitCode() == 128+int(syscall.SIGTERM) {
		return nil
	}
	if p.err != nil {
		return fmt.Errorf("%s after SIGTERM: %w\n%s", p.Name, p.err, p.LogTail())
	}
	return nil
}

// dump makes the process write its stacks to its log, which ends a Go process.
func (p *Process) dump() error {
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("dump %s: %w", p.Name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(dumpTime):
	}
	return nil
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.exited
	return nil
}
