// Package brokerproc runs `varve serve` as a process for the programs under test/: real ports on loopback, a real data
// directory, signals.
package brokerproc

import (
	"context"
	"encoding/json"
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

	"github.com/varvelog/varve/httpapi"
)

// Node is one broker process over one data directory; its ports stay the same over restarts. Not safe for concurrent use.
type Node struct {
	Bin    string   // path of the binary
	Dir    string   // holds data/ and broker.log
	Bucket string   // --object-store; empty: the broker's default
	Memory string   // --memory; empty: the broker's default
	Sets   []string // --set name=value
	Env    []string // added to the environment, e.g. credentials
	Prefix []string // a command that ends by executing its arguments, e.g. in another mount namespace

	Kafka, HTTP        string // addresses
	etcdPeer, etcdConn string
	log                *os.File
	cmd                *exec.Cmd
	exited             chan error
}

// New chooses free ports and makes the directory; nothing runs yet.
func New(bin, dir string) (*Node, error) {
	n := &Node{Bin: bin, Dir: dir}
	for _, addr := range []*string{&n.Kafka, &n.HTTP, &n.etcdPeer, &n.etcdConn} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		*addr = l.Addr().String()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	n.log, err = os.Create(filepath.Join(dir, "broker.log"))
	return n, err
}

// Start executes the broker; it does not wait for it.
func (n *Node) Start() error {
	args := []string{
		"serve", "--data-dir", filepath.Join(n.Dir, "data"), "--kafka-addr", n.Kafka, "--http-addr", n.HTTP,
		"--etcd-peer-addr", n.etcdPeer, "--etcd-client-addr", n.etcdConn,
	}
	if n.Bucket != "" {
		args = append(args, "--object-store", n.Bucket)
	}
	if n.Memory != "" {
		args = append(args, "--memory", n.Memory)
	}
	for _, s := range n.Sets {
		args = append(args, "--set", s)
	}
	line := append(append(slices.Clone(n.Prefix), n.Bin), args...)
	n.cmd = exec.Command(line[0], line[1:]...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.Env = append(os.Environ(), n.Env...)
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Bin, err)
	}
	n.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan error) { exited <- cmd.Wait() }(n.cmd, n.exited)
	return nil
}

// Ready waits until /readyz answers 200.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := http.Client{Timeout: time.Second}
	for {
		resp, err := client.Get("http://" + n.HTTP + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-n.exited:
			return fmt.Errorf("the broker ended while it started: see %s: %w", n.log.Name(), err)
		case <-ctx.Done():
			return fmt.Errorf("the broker is not ready after a minute: see %s", n.log.Name())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// End sends a signal and waits for the process; after SIGKILL the error is the signal.
func (n *Node) End(sig syscall.Signal) error {
	if err := n.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case err := <-n.exited:
		return err
	case <-time.After(30 * time.Second):
		_ = n.cmd.Process.Kill()
		return fmt.Errorf("the broker did not end within 30 s of %s", sig)
	}
}

// Fsck runs `varve bucket fsck` and returns what it printed.
func (n *Node) Fsck() (string, error) {
	cmd := exec.Command(n.Bin, "bucket", "fsck", "--object-store", n.Bucket, "--output", "json")
	cmd.Env = append(os.Environ(), n.Env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Pid is the process's id.
func (n *Node) Pid() int { return n.cmd.Process.Pid }

// Close ends what still runs and closes the log file; the data stays.
func (n *Node) Close() error {
	if n.cmd != nil && n.cmd.ProcessState == nil {
		_ = n.cmd.Process.Kill()
	}
	return n.log.Close()
}

// Topic asks the broker where a topic's bytes are.
func (n *Node) Topic(ctx context.Context, name string) (httpapi.Topic, error) {
	var t httpapi.Topic
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+"/v1/topics/"+name, nil)
	if err != nil {
		return t, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return t, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return t, fmt.Errorf("describe %s: %s", name, resp.Status)
	}
	return t, json.NewDecoder(resp.Body).Decode(&t)
}
