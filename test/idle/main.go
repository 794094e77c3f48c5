// Command idle measures what a broker costs while it does nothing, and how fast it starts: resident memory, CPU, and the time
// from exec to /readyz over ten starts, on an empty data directory and on one of a gigabyte after a clean stop.
//
//	go run ./test/idle --bin bin/varve
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// figures are of one kind of data directory.
type figures struct {
	ReadyMs     []int64 `json:"readyMs"` // sorted
	ReadyMedian int64   `json:"readyMsMedian"`
	RSSMB       float64 `json:"rssMB"`
	IdleCPU     float64 `json:"idleCpuPercent"` // of one core
}

func main() {
	bin := flag.String("bin", "bin/varve", "the broker's binary")
	starts := flag.Int("starts", 10, "starts of each kind")
	idle := flag.Duration("idle", 20*time.Second, "how long CPU is measured")
	bytes := flag.Int64("bytes", 1_000_000_000, "of the second data directory")
	flag.Parse()
	dir, err := os.MkdirTemp("", "varve-idle-")
	if err == nil {
		err = run(*bin, dir, *starts, *idle, *bytes)
	}
	err = errors.Join(err, os.RemoveAll(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(bin, dir string, starts int, idle time.Duration, bytes int64) error {
	ctx := context.Background()
	out := map[string]figures{}
	var empty figures
	for i := range starts {
		n, err := proc.NewNode(bin, filepath.Join(dir, fmt.Sprint("empty", i)))
		if err == nil {
			err = cycle(ctx, n, &empty, i == starts-1, idle)
		}
		if err != nil {
			return err
		}
	}
	out["empty"] = empty
	n, err := proc.NewNode(bin, filepath.Join(dir, "full"))
	if err == nil {
		err = fill(ctx, n, bytes)
	}
	if err != nil {
		return err
	}
	var full figures
	for i := range starts {
		if err := cycle(ctx, n, &full, i == starts-1, idle); err != nil {
			return err
		}
	}
	out["1GB"] = full
	for k, f := range out {
		slices.Sort(f.ReadyMs)
		f.ReadyMedian = f.ReadyMs[len(f.ReadyMs)/2]
		out[k] = f
	}
	b, _ := json.MarshalIndent(out, "", "  ")
	fmt.Println(string(b))
	return nil
}

// cycle starts the broker, takes its time, measures it idle where asked, and stops it.
func cycle(ctx context.Context, n *proc.Node, f *figures, measure bool, idle time.Duration) error {
	exec := time.Now()
	if err := errors.Join(n.Start(), n.Ready(ctx)); err != nil {
		return err
	}
	f.ReadyMs = append(f.ReadyMs, time.Since(exec).Milliseconds())
	if measure {
		time.Sleep(5 * time.Second) // what the start left to do
		before, err := cpuSeconds(n.Pid())
		if err != nil {
			return err
		}
		time.Sleep(idle)
		after, err := cpuSeconds(n.Pid())
		if err != nil {
			return err
		}
		f.IdleCPU = (after - before) / idle.Seconds() * 100
		if f.RSSMB, err = rss(n.Pid()); err != nil {
			return err
		}
	}
	return n.End(syscall.SIGTERM)
}

// fill writes a gigabyte that stays in the hot store, and stops the broker.
func fill(ctx context.Context, n *proc.Node, bytes int64) error {
	if err := errors.Join(n.Start(), n.Ready(ctx)); err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Kafka), kgo.DefaultProduceTopic("idle"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 16, 1, map[string]*string{"local.retention.bytes": kadm.StringPtr("1073741824")}, "idle"); err != nil {
		return err
	}
	var failed error
	rng := rand.NewChaCha8([32]byte{})
	for range bytes / 1000 {
		v := make([]byte, 1000)
		_, _ = rng.Read(v) // never fails
		cl.Produce(ctx, &kgo.Record{Value: v}, func(_ *kgo.Record, err error) { failed = errors.Join(failed, err) })
	}
	return errors.Join(cl.Flush(ctx), failed, n.End(syscall.SIGTERM))
}

func cpuSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+2:])
	user, err1 := strconv.ParseFloat(f[11], 64)
	sys, err2 := strconv.ParseFloat(f[12], 64)
	return (user + sys) / 100, errors.Join(err1, err2)
}

func rss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	return pages * float64(os.Getpagesize()) / 1e6, err
}
