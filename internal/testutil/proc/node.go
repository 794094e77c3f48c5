package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

const (
	varveStart = 60 * time.Second
	varveEnd   = 30 * time.Second
)

// Node is one `varve serve` over one data directory that may be ended and started again: its ports stay the same. Not safe for
// concurrent use.
type Node struct {
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
	*Process           // the last start
}

// NewNode chooses free ports and makes the directory; nothing runs yet.
func NewNode(bin, dir string) (*Node, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(4)
	if err != nil {
		return nil, err
	}
	return &Node{Bin: bin, Dir: dir, Kafka: addrs[0], HTTP: addrs[1], etcdPeer: addrs[2], etcdConn: addrs[3]}, os.MkdirAll(dir, 0o755)
}

// Start executes the broker; it does not wait for it.
func (n *Node) Start() error {
	line := append(slices.Clone(n.Prefix), n.Bin, "serve", "--data-dir", filepath.Join(n.Dir, "data"),
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

// Ready waits until /readyz answers 200.
func (n *Node) Ready(ctx context.Context) error {
	return n.await(ctx, varveStart, func(ctx context.Context) error { return getReady(ctx, n.HTTP) })
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

// Topic asks the broker where a topic's bytes are.
func (n *Node) Topic(ctx context.Context, name string) (t httpapi.Topic, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+"/v1/topics/"+name, nil)
	if err != nil {
		return t, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return t, fmt.Errorf("describe %s: %s", name, resp.Status)
	}
	return t, json.NewDecoder(resp.Body).Decode(&t)
}
