package proc

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
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

// StartVarve runs `varve serve` on free ports and waits until it is ready.
func StartVarve(ctx context.Context, o VarveOptions) (*Process, error) {
	n, err := NewNode(o.Binary, o.Dir)
	if err != nil {
		return nil, err
	}
	n.Bucket, n.Args, n.Env = o.ObjectStore, o.Args, o.Env
	for name, value := range o.Set {
		n.Sets = append(n.Sets, name+"="+value)
	}
	if err := n.Start(); err != nil {
		return nil, err
	}
	return n.Process, n.endUnlessUp(n.Ready(ctx))
}

// getReady asks an address over a client.
func getReady(ctx context.Context, client *http.Client, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
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
