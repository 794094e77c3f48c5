package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// node is one broker process over one data directory; its ports stay the same over restarts.
type node struct {
	bin, dir, bucket   string
	kafka, http        string
	etcdPeer, etcdConn string
	sets               []string
	log                *os.File
	cmd                *exec.Cmd
	exited             chan error
}

func newNode(bin, dir, bucket string, sets []string) (*node, error) {
	n := &node{bin: bin, dir: dir, bucket: bucket, sets: sets}
	for _, addr := range []*string{&n.kafka, &n.http, &n.etcdPeer, &n.etcdConn} {
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

// start executes the broker; it does not wait for it.
func (n *node) start() error {
	args := []string{
		"serve", "--data-dir", filepath.Join(n.dir, "data"), "--kafka-addr", n.kafka, "--http-addr", n.http,
		"--etcd-peer-addr", n.etcdPeer, "--etcd-client-addr", n.etcdConn, "--object-store", n.bucket, "--memory", "1GiB",
	}
	for _, s := range n.sets {
		args = append(args, "--set", s)
	}
	n.cmd = exec.Command(n.bin, args...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.bin, err)
	}
	n.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan error) { exited <- cmd.Wait() }(n.cmd, n.exited)
	return nil
}

// ready waits until /readyz answers 200.
func (n *node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := http.Client{Timeout: time.Second}
	for {
		resp, err := client.Get("http://" + n.http + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-n.exited:
			return fmt.Errorf("the broker ended while it started (%v): see %s", err, n.log.Name())
		case <-ctx.Done():
			return fmt.Errorf("the broker is not ready after a minute: see %s", n.log.Name())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end sends a signal and waits for the process.
func (n *node) end(sig syscall.Signal) error {
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

// fsck runs `varve bucket fsck` and returns what it printed.
func (n *node) fsck() (string, error) {
	out, err := exec.Command(n.bin, "bucket", "fsck", "--object-store", n.bucket, "--output", "json").CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
