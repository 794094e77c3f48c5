package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
			errs[i] = n.Get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds), func(body io.Reader) error {
				return save(filepath.Join(dir, fmt.Sprintf("%s-broker%d.pprof", workload, n.ID)), body)
			})
		})
	}
	return func() error {
		wg.Wait()
		return errors.Join(errs...)
	}
}

func save(path string, body io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}
