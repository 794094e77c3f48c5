package proc

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// VarveOptions configure StartVarve.
type VarveOptions struct {
	Binary      string            // bin/varve
	Dir         string            // created where missing; data is kept in it across starts
	Set         map[string]string // --set name=value
	ObjectStore string            // URL; default: a folder in Dir
	Args        []string          // more flags
	Env         []string          // more environment, NAME=value
}

const varveStart = 60 * time.Second

// StartVarve runs `varve serve` on free ports and waits until it is ready.
func StartVarve(ctx context.Context, o VarveOptions) (*Process, error) {
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(4)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(o.Dir, "data")
	p := &Process{Name: "varve", Dir: o.Dir, KafkaAddr: addrs[0], HTTPAddr: addrs[1], Bucket: o.ObjectStore}
	args := []string{"serve", "--data-dir", data, "--kafka-addr", addrs[0], "--http-addr", addrs[1], "--etcd-peer-addr", addrs[2], "--etcd-client-addr", addrs[3]}
	if p.Bucket == "" {
		p.Bucket = "dir://" + filepath.Join(data, "bucket")
	} else {
		args = append(args, "--object-store", p.Bucket)
	}
	for name, value := range o.Set {
		args = append(args, "--set", name+"="+value)
	}
	cmd := exec.Command(binary, append(args, o.Args...)...)
	cmd.Env = append(os.Environ(), o.Env...)
	if err := p.start(cmd); err != nil {
		return nil, err
	}
	return p, p.await(ctx, varveStart, func(ctx context.Context) error { return getReady(ctx, p.HTTPAddr) })
}

func getReady(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what could be read says enough
		return fmt.Errorf("/readyz: %s: %s", resp.Status, strings.TrimSpace(string(why)))
	}
	return nil
}
