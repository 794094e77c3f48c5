package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/varvelog/varve/cmd/varve/load"
)

// listen begins to count the CPU time of everything but the brokers and this process; the function that it returns tells how
// many cores that kept busy. Figures of a noisy run say less.
func (s *system) listen(ctx context.Context) (noise func() (cores float64, err error), err error) {
	began := time.Now()
	before, err := s.othersSeconds(ctx)
	return func() (float64, error) {
		after, err := s.othersSeconds(ctx)
		return max(after-before, 0) / time.Since(began).Seconds(), err
	}, err
}

func (s *system) othersSeconds(ctx context.Context) (float64, error) {
	all, err := busySeconds()
	if err != nil {
		return 0, err
	}
	own, err := load.ReadUsage(os.Getpid())
	if err != nil {
		return 0, err
	}
	brokers, err := s.usage(ctx)
	return all - own.CPUSeconds - brokers.CPUSeconds, err
}

// busySeconds is what all cores have worked since the machine started, by the first line of /proc/stat (proc(5)).
func busySeconds() (float64, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	const idle, ioWait, guest, ticks = 4, 5, 9, 100 // guests are in user already
	var sum float64
	for i, f := range strings.Fields(line) {
		if i == 0 || i == idle || i == ioWait || i >= guest {
			continue
		}
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n
	}
	return sum / ticks, nil
}

// createMs is how long the file system takes to create an empty file. It decides how fast a broker that keeps several files for
// each partition creates them: an ext4 without a journal may take milliseconds after many files were deleted, anywhere on the disk, one with
// a journal 0.1.
func createMs(dir string) (float64, error) {
	const files = 500
	dir = filepath.Join(dir, "files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range files {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return 0, err
		}
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds() * 1000 / files, nil // the files stay: deleted ones are in the way of the next
}
