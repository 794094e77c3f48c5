package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/varvelog/varve/test/torture/history"
	"github.com/varvelog/varve/test/torture/site"
	"github.com/varvelog/varve/test/torture/steer"
)

var order = []string{"leader", "controller", "restart", "pause", "cut"}

// options are the flags.
type options struct {
	site        site.Options
	only, out   string
	rounds      int
	pauseRounds int
	partitions  int
	rate        int
	pause       time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.site.Bin, "varve", "bin/varve", "the binary")
	flag.BoolVar(&o.site.Kafka, "kafka", false, "measure Apache Kafka 4.3 instead")
	flag.BoolVar(&o.site.Loopback, "loopback", false, "no network namespaces; leaves out the case cut")
	flag.BoolVar(&o.site.S3, "s3", false, "MinIO as the bucket instead of a directory")
	flag.StringVar(&o.site.Memory, "memory", "1GiB", "of each of Varve's brokers")
	flag.Func("set", "a setting of Varve's, name=value; may be repeated", func(s string) error { o.site.Sets = append(o.site.Sets, s); return nil })
	flag.StringVar(&o.only, "only", strings.Join(order, ","), "cases, comma between")
	flag.StringVar(&o.out, "out", "", "where the JSON goes (default: behind the table)")
	flag.IntVar(&o.rounds, "rounds", 10, "of each case")
	flag.IntVar(&o.pauseRounds, "pause-rounds", 4, "of pause and cut")
	flag.IntVar(&o.partitions, "partitions", 6, "of the topic")
	flag.IntVar(&o.rate, "rate", 2000, "records per second, over all partitions")
	flag.DurationVar(&o.pause, "pause", time.Minute, "how long pause and cut last")
	flag.Parse()
	o.site.Brokers = 3
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := measure(ctx, o)
	if err != nil {
		r.Errors = append(r.Errors, err.Error())
	}
	r.print(os.Stdout)
	b, _ := json.MarshalIndent(r, "", "  ")
	if o.out == "" {
		fmt.Printf("\n%s\n", b)
	} else if err := os.WriteFile(o.out, append(b, '\n'), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
	}
	if len(r.Errors)+len(r.Counts) > 0 {
		os.Exit(1)
	}
}

// measure sets up, measures and checks; the report holds what there is, also beside an error.
func measure(ctx context.Context, o options) (_ *report, err error) {
	began := time.Now()
	r := &report{System: "Varve", Place: "network namespaces", Brokers: o.site.Brokers, Partitions: o.partitions, Rate: o.rate, PauseMs: o.pause.Milliseconds(),
		Client: fmt.Sprintf("franz-go, idempotent, acks=all, no linger, metadata age %s, back-off %s, produce time-out 10 s + 10 s", metadataAge, backoff)}
	if o.site.Kafka {
		r.System = "Apache Kafka 4.3"
	}
	defer func() { r.Seconds = time.Since(began).Seconds() }()
	if o.site.Dir, err = os.MkdirTemp("", "varve-failover-"); err != nil {
		return r, err
	}
	s, err := site.New(ctx, o.site)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, s.Close())
		if err == nil && len(r.Counts) == 0 {
			_ = os.RemoveAll(o.site.Dir) // a temporary directory
		} else {
			fmt.Fprintln(os.Stderr, "failover: the data is in", o.site.Dir)
		}
	}()
	if s.Net == nil {
		r.Place = "loopback"
		if s.Why != nil {
			fmt.Fprintln(os.Stderr, "failover: on loopback, without the case cut:", s.Why)
		}
	}
	if err := s.Cluster.Start(ctx); err != nil {
		return r, err
	}
	wheel, err := steer.Take(s.Cluster.Bootstrap(), s.Dial)
	if err != nil {
		return r, err
	}
	defer wheel.Close()
	return r, underLoad(ctx, o, &run{site: s, wheel: wheel, stalls: newStalls(o.partitions), partitions: o.partitions, pause: o.pause}, r)
}

// underLoad creates the topics, runs the cases while records flow, and reads all of them back.
func underLoad(ctx context.Context, o options, run *run, r *report) error {
	setup, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	placement := steer.Spread([]int32{1, 2, 3}, o.partitions, 3)
	for _, name := range []string{topic, freshTopic} {
		if err := run.wheel.Create(setup, name, placement, map[string]string{"min.insync.replicas": "2"}); err != nil {
			return err
		}
	}
	h := history.New(o.partitions)
	load, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan error, 1)
	go func() { loaded <- produce(load, run.site.Cluster, o.partitions, o.rate, h, run.stalls) }()
	err := run.play(ctx, o, r)
	stop()
	err = errors.Join(err, <-loaded)
	read, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit) // also after Ctrl-C
	defer cancel()
	err = errors.Join(err, readBack(read, run.site.Cluster, o.partitions, h))
	r.Acked = h.Acked()
	r.Anomalies, r.Counts = h.Anomalies()
	return err
}

func (r *run) play(ctx context.Context, o options, rep *report) error {
	cases := r.cases()
	for _, name := range order {
		if !slices.Contains(strings.Split(o.only, ","), name) || name == "cut" && r.site.Net == nil {
			continue
		}
		rounds := o.rounds
		if name == "pause" || name == "cut" {
			rounds = o.pauseRounds
		}
		for k := range rounds {
			ms, err := cases[name](ctx, k)
			for _, m := range ms {
				fmt.Fprintf(os.Stderr, "%-10s %2d  broker %d (controller: %v, leads %d)  stall %d ms  fresh %d ms  back %d ms\n", m.Case, m.Round+1, m.Victim, m.Controller, m.Led, m.Stall, m.Fresh, m.Back)
			}
			rep.Rounds = append(rep.Rounds, ms...)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", name, k+1, err)
			}
		}
	}
	return nil
}
