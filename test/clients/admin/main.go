package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

const stopPatience = 30 * time.Second

type settings struct {
	varve, libs, classes, source, logs string
	verbose                            bool
}

func main() {
	tools := os.Getenv("VARVE_TOOLS")
	if home, err := os.UserHomeDir(); tools == "" && err == nil {
		tools = filepath.Join(home, ".cache", "varve-tools")
	}
	var o settings
	flag.StringVar(&o.varve, "varve", "bin/varve", "the binary to test")
	flag.StringVar(&o.libs, "libs", filepath.Join(tools, "kafka-4.3", "libs"), "the jars of Apache Kafka")
	flag.StringVar(&o.classes, "classes", filepath.Join(tools, "clients", "java-4.3.0", "classes"), "where install.sh has put AdminTools.class")
	flag.StringVar(&o.source, "source", "test/clients", "folder of DIFFERENCES.md and admin/commands.txt")
	flag.StringVar(&o.logs, "logs", "", "where outputs and brokers' logs are kept (default: a temporary folder)")
	flag.BoolVar(&o.verbose, "v", false, "print what Kafka's side printed, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "admin:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context, o settings) (err error) {
	if o.logs == "" {
		if o.logs, err = os.MkdirTemp("", "varve-admin-"); err != nil {
			return err
		}
	}
	kafkaProcess, err := proc.StartKafka(ctx, proc.KafkaOptions{Libs: o.libs, Dir: filepath.Join(o.logs, "kafka"), Set: map[string]string{
		"group.initial.rebalance.delay.ms": "0", "auto.create.topics.enable": "false"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kafkaProcess.Stop(stopPatience)) }()
	varveProcess, err := proc.StartVarve(ctx, proc.VarveOptions{Binary: o.varve, Dir: filepath.Join(o.logs, "varve"), Set: map[string]string{
		"group.initial.rebalance.delay.ms": "0", "auto.create.topics.enable": "false"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, varveProcess.Stop(stopPatience)) }()
	base := time.Now().Add(-ago).Truncate(time.Second)
	kafka, err := newSide(o, kafkaProcess, base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kafka.close()) }()
	varve, err := newSide(o, varveProcess, base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, varve.close()) }()
	return walk(ctx, o, kafka, varve)
}

func newSide(o settings, p *proc.Process, base time.Time) (*side, error) {
	dir, err := filepath.Abs(p.Dir)
	if err != nil {
		return nil, err
	}
	t, err := startTools(o.libs, o.classes, dir)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(p.KafkaAddr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return &side{name: p.Name, broker: p.KafkaAddr, dir: dir, base: base, tools: t, client: client, members: map[string]*kgo.Client{}}, err
}

func (s *side) close() error {
	s.client.Close()
	return s.tools.stop()
}

// walk runs every command on both sides.
func walk(ctx context.Context, o settings, kafka, varve *side) error {
	script, err := os.ReadFile(filepath.Join(o.source, "admin", "commands.txt"))
	if err != nil {
		return err
	}
	document, err := os.ReadFile(filepath.Join(o.source, "DIFFERENCES.md"))
	if err != nil {
		return err
	}
	known := explained(string(document))
	ran, same, allowed, unknown := 0, 0, 0, 0
	for _, line := range strings.Split(string(script), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		diff, output, err := both(ctx, line, kafka, varve)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, "kafka-") {
			continue
		}
		if ran++; len(diff) == 0 {
			same++
		} else {
			fmt.Println(line)
		}
		if o.verbose {
			fmt.Printf("# %s\n  %s\n", line, strings.Join(output, "\n  "))
		}
		for _, d := range diff {
			if known.have(line, d) {
				allowed++
				fmt.Println("    explained:", d)
			} else {
				unknown++
				fmt.Println("   ", d)
			}
		}
	}
	fmt.Printf("%d commands, %d with the same output; of the others' lines %d are explained in DIFFERENCES.md, %d are not\n", ran, same, allowed, unknown)
	if unknown > 0 {
		return errors.New("Kafka's tools print something else against Varve")
	}
	return nil
}

// both runs a line on both sides and answers the difference, and what Kafka's side printed.
func both(ctx context.Context, line string, kafka, varve *side) (diff, output []string, err error) {
	var lines [2][]string
	for n, s := range []*side{kafka, varve} {
		printed, err := s.step(ctx, line)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %s: %w", s.name, line, err)
		}
		lines[n] = normalise(printed, map[string]string{s.broker: "BROKER", s.dir: "DIR"})
	}
	return difference(lines[0], lines[1]), lines[0], nil
}
