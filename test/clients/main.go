package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

type settings struct {
	varve, source, only, logs string
	records                   int
	seed                      uint64
}

func main() {
	var o settings
	flag.StringVar(&o.varve, "varve", "bin/varve", "the binary to test")
	flag.StringVar(&o.source, "source", "test/clients", "this folder, with the clients' programs")
	flag.StringVar(&o.only, "only", "", "clients to run, by name, comma between (default: all)")
	flag.StringVar(&o.logs, "logs", "", "where the output of clients and brokers is kept (default: a temporary folder)")
	flag.IntVar(&o.records, "records", 60, "records per topic and round")
	flag.Uint64Var(&o.seed, "seed", 1, "of the moments at which a busy broker is ended")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := clients(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func clients(ctx context.Context, o settings) error {
	all, err := roster(o.source)
	if err != nil {
		return err
	}
	chosen, err := choose(all, o.only)
	if err != nil {
		return err
	}
	if o.logs == "" {
		if o.logs, err = os.MkdirTemp("", "varve-clients-"); err != nil {
			return err
		}
	}
	var results []result
	for _, c := range chosen {
		r := one(ctx, o, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		verdict := "ok"
		if r.err != nil {
			verdict = "FAILED: " + r.err.Error()
		}
		fmt.Printf("%-24s %4.0f s  %s\n", c.name, r.took.Seconds(), verdict)
		results = append(results, r)
	}
	fmt.Printf("\n%s\noutput of clients and brokers: %s\n", table(results), o.logs)
	if slices.ContainsFunc(results, func(r result) bool { return r.err != nil }) {
		return errors.New("not every client came through")
	}
	return nil
}

func choose(all []client, only string) ([]client, error) {
	if only == "" {
		return all, nil
	}
	var chosen []client
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(all, func(c client) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no client %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// one runs a client against a fresh broker.
func one(ctx context.Context, o settings, c client) result {
	start := time.Now()
	r := result{name: c.name, version: c.version}
	dir, err := filepath.Abs(filepath.Join(o.logs, c.name))
	if err != nil {
		r.err = err
		return r
	}
	node, err := proc.NewNode(o.varve, dir)
	if err != nil {
		r.err = err
		return r
	}
	s := &session{client: c, node: node, dir: dir, records: o.records, random: rand.New(rand.NewPCG(o.seed, 0))}
	r.err = s.run(ctx)
	r.took = time.Since(start)
	if s.came != nil {
		r.records, r.redelivered = s.claimed, s.came.redelivered
	}
	return r
}

func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "client\tversion\trecords\tdelivered again\trestarts\tseconds\tresult")
	for _, r := range results {
		verdict := "ok"
		if r.err != nil {
			verdict = "FAILED"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%.0f\t%s\n", r.name, r.version, r.records, r.redelivered, len(restarts), r.took.Seconds(), verdict)
	}
	_ = w.Flush() // a buffer
	return b.String()
}
