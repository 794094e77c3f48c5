package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/varvelog/varve/internal/testutil/ports"
)

const (
	varveStart = 60 * time.Second
	varveEnd   = 30 * time.Second
)

// Node is one broker over one data directory that may be ended and started again: its ports stay the same. It is `varve serve`, or, in
// a Cluster of Apache Kafka's, that. Not safe for concurrent use.
type Node struct {
	ID     int32    // broker id
	Bin    string   // path of the binary
	Dir    string   // holds data/ and broker.log
	Bucket string   // --object-store; empty: the broker's default
	Memory string   // --memory; empty: the broker's default
	Sets   []string // --set name=value
	Args   []string // more flags
	Env    []string // added to the environment, e.g. credentials
	Prefix []string // a command that ends by executing its arguments, e.g. in another mount namespace

	Kafka, HTTP        string // addresses
	etcdPeer, etcdConn string
	dial               Dial                        // how this process reaches the broker; nil: as it is
	vendor             func() (line []string)      // executes instead of varve serve
	vendorReady        func(context.Context) error // with it
	paused             bool
	*Process           // the last start
}

// Dial makes a connection, e.g. into another network namespace.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// NewNode chooses free ports and makes the directory; nothing runs yet.
func NewNode(bin, dir string) (*Node, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	addrs, err := ports.Loopback(4)
	if err != nil {
		return nil, err
	}
	return &Node{ID: 1, Bin: bin, Dir: dir, Kafka: addrs[0], HTTP: addrs[1], etcdPeer: addrs[2], etcdConn: addrs[3]}, os.MkdirAll(dir, 0o755)
}

// Start executes the broker; it does not wait for it.
func (n *Node) Start() error {
	n.paused = false
	if n.vendor != nil {
		line := append(slices.Clone(n.Prefix), n.vendor()...)
		n.Process = &Process{Name: "kafka", KafkaAddr: n.Kafka, Dir: n.Dir}
		return n.Process.start(exec.Command(line[0], line[1:]...))
	}
	line := append(slices.Clone(n.Prefix), n.Bin, "serve", "--data-dir", n.DataDir(),
		"--kafka-addr", n.Kafka, "--http-addr", n.HTTP, "--etcd-peer-addr", n.etcdPeer, "--etcd-client-addr", n.etcdConn)
	if n.Bucket != "" {
		line = append(line, "--object-store", n.Bucket)
	}
	if n.Memory != "" {
		line = append(line, "--memory", n.Memory)
	}
	for _, s := range n.Sets {
		line = append(line, "--set", s)
	}
	line = append(line, n.Args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), n.Env...)
	n.Process = &Process{Name: "varve", KafkaAddr: n.Kafka, HTTPAddr: n.HTTP, Dir: n.Dir, Bucket: n.bucket()}
	return n.Process.start(cmd)
}

func (n *Node) bucket() string {
	if n.Bucket != "" {
		return n.Bucket
	}
	return "dir://" + filepath.Join(n.Dir, "data", "bucket")
}

// Ready waits until /readyz answers 200. The process runs on where ctx ends first.
func (n *Node) Ready(ctx context.Context) error {
	if n.vendor != nil {
		return n.await(ctx, kafkaStart, n.vendorReady)
	}
	client := http.DefaultClient
	if n.dial != nil {
		transport := &http.Transport{DialContext: n.dial}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	return n.await(ctx, varveStart, func(ctx context.Context) error { return getReady(ctx, client, n.HTTP) })
}

// End sends a signal and waits for the process; after SIGKILL the error is the signal.
func (n *Node) End(sig syscall.Signal) error {
	if sig == syscall.SIGTERM {
		return n.Stop(varveEnd)
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-n.Exited():
		return n.err
	case <-time.After(varveEnd):
		return errors.Join(fmt.Errorf("the broker did not end within %s of %s", varveEnd, sig), n.Kill())
	}
}

// Running tells whether the last start has not ended; a paused broker runs.
func (n *Node) Running() bool {
	if n.Process == nil || n.cmd == nil {
		return false
	}
	select {
	case <-n.Exited():
		return false
	default:
		return true
	}
}

// Kill9 sends SIGKILL and waits for the end. That the broker had ended before is an error: something else ended it.
func (n *Node) Kill9() error {
	if !n.Running() {
		return fmt.Errorf("broker %d has ended by itself\n%s", n.ID, n.LogTail())
	}
	n.paused = false
	return n.Kill()
}

// Restart ends the broker with SIGTERM, which must be a clean end, and starts it; it does not wait until it is ready.
func (n *Node) Restart() error {
	if err := n.Stop(varveEnd); err != nil {
		return err
	}
	return n.Start()
}

// Pause stops the process where it is (SIGSTOP): its sockets stay open, and the kernel accepts for it.
func (n *Node) Pause() error {
	n.paused = true
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return awaitStop(n.cmd.Process.Pid)
}

// Cont lets a paused process go on.
func (n *Node) Cont() error {
	n.paused = false
	return n.cmd.Process.Signal(syscall.SIGCONT)
}

// Paused is true between Pause and Cont.
func (n *Node) Paused() bool { return n.paused }

// Wipe empties the data directory of a broker that has ended; the directory stays, it may be a mount.
func (n *Node) Wipe() error {
	if n.Running() {
		return fmt.Errorf("broker %d runs: its disk cannot be wiped", n.ID)
	}
	entries, err := os.ReadDir(n.DataDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.DataDir(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// DataDir is what the broker knows as its disk.
func (n *Node) DataDir() string { return filepath.Join(n.Dir, "data") }

// Pid is the id of the process that runs.
func (n *Node) Pid() int { return n.PID() }

// Close ends what still runs; the data stays.
func (n *Node) Close() error {
	if n.Process == nil || n.cmd == nil {
		return nil
	}
	return n.Kill()
}

// Fsck runs `varve bucket fsck` and returns what it printed.
func (n *Node) Fsck() (string, error) {
	cmd := exec.Command(n.Bin, "bucket", "fsck", "--object-store", n.bucket(), "--output", "json")
	cmd.Env = append(os.Environ(), n.Env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
