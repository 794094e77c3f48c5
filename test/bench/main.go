package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	varve  string
	libs   string
	out    string
	only   string
	rounds int
	quick  bool
	skip   string
	set    []string

	cluster    bool
	scale      bool
	partitions int
	profile    string
}

func main() {
	var o options
	flag.StringVar(&o.varve, "varve", "bin/varve", "the binary to measure")
	flag.StringVar(&o.libs, "kafka-libs", "", "folder of Kafka's jars (default: what install-kafka.sh fetches)")
	flag.StringVar(&o.out, "out", "", "where the JSON goes (default: bench-DATE.json)")
	flag.StringVar(&o.only, "only", "", "workloads to run, by name, comma between")
	flag.StringVar(&o.skip, "skip", "", "a broker to leave out: kafka or varve")
	flag.IntVar(&o.rounds, "rounds", 0, "how often (default: 2, with --quick 1)")
	flag.BoolVar(&o.quick, "quick", false, "a fraction of the data")
	flag.Func("set", "a setting of Varve's, name=value; may be repeated", func(s string) error { o.set = append(o.set, s); return nil })
	flag.BoolVar(&o.cluster, "cluster", false, "only the cluster of three brokers")
	flag.BoolVar(&o.scale, "scale", false, "a cluster of three with many partitions instead: starts, a killed broker, memory")
	flag.IntVar(&o.partitions, "partitions", 5000, "how many, with -scale")
	flag.StringVar(&o.profile, "profile", "", "folder for a CPU profile of each Varve during each workload")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, o options) error {
	if o.rounds == 0 {
		o.rounds = 2
		if o.quick {
			o.rounds = 1
		}
	}
	if o.libs == "" && o.skip != "kafka" {
		out, err := exec.CommandContext(ctx, "test/bench/install-kafka.sh").Output()
		if err != nil {
			return fmt.Errorf("install Apache Kafka: %w", err)
		}
		o.libs = strings.TrimSpace(string(out))
	}
	dir, err := os.MkdirTemp("", "varve-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := report{Machine: machine(), Started: time.Now(), Quick: o.quick}
	if r.FileMs, err = createMs(dir); err != nil {
		return err
	}
	for _, part := range o.parts() {
		for round := range o.rounds {
			systems := []string{"kafka", "varve"}
			if round%2 == 1 { // who goes first should not matter, but may
				slices.Reverse(systems)
			}
			for _, name := range systems {
				if name == o.skip || ctx.Err() != nil {
					continue
				}
				if err := part(ctx, o, name, filepath.Join(dir, fmt.Sprintf("%s-%d", name, len(r.Ran))), round, &r); err != nil {
					r.Errors = append(r.Errors, fmt.Sprintf("%s, round %d: %v", name, round+1, err))
					fmt.Fprintln(os.Stderr, "bench:", name, err)
				}
				r.Ran = append(r.Ran, name)
			}
		}
	}
	r.print(os.Stdout)
	if o.out == "" {
		o.out = "bench-" + r.Started.Format("20060102-150405") + ".json"
	}
	if err := r.save(o.out); err != nil {
		return err
	}
	fmt.Println("\nall figures:", o.out)
	if len(r.Errors) > 0 {
		return errors.New(strings.Join(r.Errors, "\n"))
	}
	return ctx.Err()
}

// part is a run of one system, on empty folders in dir, that adds to the report.
type part func(ctx context.Context, o options, name, dir string, round int, r *report) error

func (o options) parts() []part {
	switch {
	case o.scale:
		return []part{runScale}
	case o.cluster:
		return []part{runCluster}
	}
	return []part{runOne, runCluster}
}

func runOne(ctx context.Context, o options, name, dir string, round int, r *report) error {
	return runAll(ctx, o, name, dir, round, r, 1, workloads())
}

func runCluster(ctx context.Context, o options, name, dir string, round int, r *report) error {
	return runAll(ctx, o, name, dir, round, r, brokers, clusterWorkloads())
}

// runAll starts fresh brokers and runs the workloads on them, one after the other.
func runAll(ctx context.Context, o options, name, dir string, round int, r *report, brokers int, todo []workload) (err error) {
	s, err := startSystem(ctx, o, name, dir, brokers)
	if err != nil {
		return err
	}
	// Its directory stays until the end (about 40 GB for all rounds): what is deleted just before a broker starts costs that
	// broker time. An ext4 without a journal, for one, steps over each inode that was freed in the last minute.
	defer func() { err = errors.Join(err, s.Stop()) }()
	scale := int64(1)
	if o.quick {
		scale = 3
	}
	for _, w := range todo {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), w.name) && !w.always {
			continue
		}
		began := time.Now()
		noise, err := s.listen(ctx)
		if err != nil {
			return err
		}
		profiles := s.profile(ctx, o.profile, w.name)
		m, err := w.run(ctx, s, scale)
		if err = errors.Join(err, profiles()); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if w.always {
			continue
		}
		m.Workload, m.System, m.Round = w.name, name, round+1
		if m.Others, err = noise(); err != nil {
			return err
		}
		r.Results = append(r.Results, m)
		fmt.Printf("%-6s %-16s %s (%.0f s)\n", name, w.name, m, time.Since(began).Seconds())
	}
	return nil
}
