package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profileSeconds is shorter than any workload of a full run: what is left of a shorter one shows as idle.
const profileSeconds = 6

// profile fetches a CPU profile of each Varve into dir while a workload runs; the function that it returns waits for them.
func (s *system) profile(ctx context.Context, dir, workload string) (wait func() error) {
	if dir == "" || s.name == "kafka" {
		return func() error { return nil }
	}
	errs := make([]error, len(s.Nodes))
	var wg sync.WaitGroup
	for i, n := range s.Nodes {
		wg.Go(func() {
			errs[i] = download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", n.HTTP, profileSeconds),
				filepath.Join(dir, fmt.Sprintf("%s-broker%d.pprof", workload, n.ID)))
		})
	}
	return func() error {
		wg.Wait()
		return errors.Join(errs...)
	}
}

func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
