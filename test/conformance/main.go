package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

const (
	suitePatience = 20 * time.Minute // the first run builds clients from source
	stopPatience  = 30 * time.Second
)

func main() {
	varve := flag.String("varve", "bin/varve", "the binary to test")
	dir := flag.String("cases", env("CASES_DIR", "../shared/cases"), "folder of the scripts (CASES_DIR)")
	only := flag.String("only", os.Getenv("CASES"), "scripts to run, by name, space or comma between (CASES; default: all)")
	logs := flag.String("logs", "", "where the scripts' and the brokers' output is kept (default: a temporary folder)")
	external := flag.String("broker", "", "test this broker (HOST:PORT) instead of a fresh Varve for each script")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := conformance(ctx, *varve, *dir, *only, *logs, *external); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func conformance(ctx context.Context, varve, dir, only, logs, external string) error {
	scripts, err := choose(dir, only)
	if err != nil {
		return err
	}
	if logs == "" {
		if logs, err = os.MkdirTemp("", "varve-conformance-"); err != nil {
			return err
		}
	}
	var scores []score
	for _, path := range scripts {
		fmt.Printf("=== %s\n", filepath.Base(path))
		s, err := suite(ctx, varve, path, logs, external)
		if err == nil && ctx.Err() == nil && !s.reached() {
			fmt.Println("once more: several of these suites race with themselves on a busy machine (docs/conformance.md)")
			first := s
			s, err = suite(ctx, varve, path, filepath.Join(logs, "again"), external)
			s.before = &first
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		scores = append(scores, s)
	}
	show(scores)
	fmt.Println("output of the scripts and brokers:", logs)
	for _, s := range scores {
		if !s.reached() {
			return errors.New("not every suite reached what is expected of it")
		}
	}
	return nil
}

// choose lists the scripts of the folder that were asked for.
func choose(dir, only string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.sh"))
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no scripts in %s: set CASES_DIR to the folder of kcat.sh, franz-go.sh and so on", dir)
	}
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ' ' || r == ',' })
	if len(wanted) == 0 {
		return all, nil
	}
	var some []string
	for _, w := range wanted {
		i := slices.IndexFunc(all, func(p string) bool { return filepath.Base(p) == w+".sh" })
		if i < 0 {
			return nil, fmt.Errorf("no script %s.sh in %s", w, dir)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// suite runs one script against a broker of its own, with the settings that the references were made with.
func suite(ctx context.Context, varve, path, logs, broker string) (score, error) {
	name := strings.TrimSuffix(filepath.Base(path), ".sh")
	stop := func() error { return nil }
	if broker == "" {
		p, err := proc.StartVarve(ctx, proc.VarveOptions{Binary: varve, Dir: filepath.Join(logs, name), Set: map[string]string{
			"auto.create.topics.enable": "true", "group.initial.rebalance.delay.ms": "0", "num.partitions": "4",
		}})
		if err != nil {
			return score{}, err
		}
		broker, stop = p.KafkaAddr, func() error {
			err := p.Stop(stopPatience)
			return errors.Join(err, os.RemoveAll(filepath.Join(p.Dir, "data"))) // the log stays
		}
	}
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return score{}, errors.Join(err, stop())
	}
	copied, err := withoutExcluded(path, logs)
	if err != nil {
		return score{}, errors.Join(err, stop())
	}
	log, err := os.Create(filepath.Join(logs, name+".out"))
	if err != nil {
		return score{}, errors.Join(err, stop())
	}
	defer log.Close()
	s := run(ctx, copied, broker, suitePatience, log)
	s.err = errors.Join(s.err, stop())
	fmt.Printf("passed %d, failed %d, expected %d, reference %d, %.0f s\n", s.passed, s.failed, s.expected(), s.reference, s.took.Seconds())
	return s, nil
}

// show prints the table, then what failed, then what was left out.
func show(scores []score) {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "suite\tpassed\tfailed\texpected\treference\tseconds\tverdict")
	for _, s := range scores {
		verdict := "as expected"
		switch {
		case s.err != nil:
			verdict = strings.ReplaceAll(s.err.Error(), "\n", "; ")
		case !s.reached():
			verdict = "below"
		case s.before != nil:
			verdict = fmt.Sprintf("as expected at the second try, %d at the first", s.before.passed)
		case len(exclusions(s.name)) == 0:
			verdict = "reference reached"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.0f\t%s\n", s.name, s.passed, s.failed, s.expected(), s.reference, s.took.Seconds(), verdict)
	}
	_ = w.Flush() // standard output: nobody to tell
	for _, s := range scores {
		if s.before != nil {
			for _, f := range s.before.failures {
				fmt.Printf("%s, first try: %s\n", s.name, f)
			}
		}
		for _, f := range s.failures {
			fmt.Printf("%s: %s\n", s.name, f)
		}
	}
	fmt.Println()
	for _, s := range scores {
		for _, e := range exclusions(s.name) {
			fmt.Printf("excluded: %s %s: %s\n", e.suite, e.name, e.reason)
		}
	}
}
