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
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// report is what a run prints at its end.
type report struct {
	Seed         uint64   `json:"seed"`
	Kills        int      `json:"kills"`
	WhileStarted int      `json:"killsDuringStart"`
	Acked        int      `json:"acknowledged"`
	ReadyMs      []int64  `json:"-"`
	ReadyMedian  int64    `json:"readyMsMedian"`
	ReadyMax     int64    `json:"readyMsMax"`
	Fsck         string   `json:"fsck"`
	Anomalies    []string `json:"anomalies"`
	Seconds      float64  `json:"seconds"`
}

// run is one torture run.
type run struct {
	n          *proc.Node
	rng        *rand.Rand
	partitions int
	report     report
}

func main() {
	var (
		bin        = flag.String("bin", "bin/varve", "the broker's binary")
		dir        = flag.String("dir", "", "where the data goes (default: a new temporary directory, removed after a clean run)")
		bucket     = flag.String("object-store", "", "the bucket (default: a directory)")
		kills      = flag.Int("kills", 200, "how often the broker is killed")
		seconds    = flag.Int("secs", 0, "stop killing after so many seconds (0: after --kills)")
		seed       = flag.Uint64("seed", 1, "of the workload and of the moments of the kills")
		partitions = flag.Int("partitions", 8, "of the topic")
		producers  = flag.Int("producers", 4, "idempotent producers")
		rate       = flag.Int("rate", 2000, "records per second and producer")
	)
	flag.Parse()
	temp := *dir == ""
	if temp {
		d, err := os.MkdirTemp("", "varve-torture-")
		exitOn(err)
		*dir = d
	}
	if *bucket == "" {
		*bucket = "dir://" + filepath.Join(*dir, "bucket")
	}
	n, err := proc.NewNode(*bin, *dir)
	exitOn(err)
	n.Bucket, n.Memory, n.Sets = *bucket, "1GiB", []string{
		"log.segment.bytes=1048576", "varve.scrub.interval.ms=3000", "varve.gc.grace.ms=1000", "varve.hot.bytes=4194304",
		"log.retention.check.interval.ms=1000", "varve.tail.bytes=2097152",
	}
	r := &run{n: n, rng: rand.New(rand.NewPCG(*seed, 0)), partitions: *partitions, report: report{Seed: *seed}}
	begin := time.Now()
	err = r.play(*kills, time.Duration(*seconds)*time.Second, *producers, *rate)
	r.report.Seconds = time.Since(begin).Seconds()
	if err != nil {
		r.report.Anomalies = append(r.report.Anomalies, err.Error())
	}
	out, _ := json.MarshalIndent(r.report, "", "  ")
	fmt.Println(string(out))
	if len(r.report.Anomalies) > 0 {
		fmt.Fprintf(os.Stderr, "torture: %d anomalies; the data is in %s\n", len(r.report.Anomalies), *dir)
		os.Exit(1)
	}
	if temp {
		exitOn(os.RemoveAll(*dir))
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

// play runs load and kills, then the checks.
func (r *run) play(kills int, limit time.Duration, producers, rate int) error {
	ctx := context.Background()
	if err := r.n.Start(); err != nil {
		return err
	}
	defer func() { _ = r.n.Close() }()
	if err := r.n.Ready(ctx); err != nil {
		return err
	}
	if err := r.createTopic(ctx); err != nil {
		return err
	}
	load, stopLoad := context.WithCancel(ctx)
	follow, stopFollow := context.WithCancel(ctx)
	l, along := newLedger(r.partitions), newReader(r.partitions)
	var wg, followers sync.WaitGroup
	errs := make(chan error, producers+1)
	for id := range producers {
		wg.Go(func() { errs <- produce(load, r.n.Kafka, uint32(id+1), r.partitions, rate, r.report.Seed, l) })
	}
	followers.Go(func() { errs <- along.follow(follow, r.n.Kafka) })
	killErr := r.kill(ctx, kills, limit)
	stopLoad()
	wg.Wait()
	stopFollow()
	followers.Wait()
	close(errs)
	err := killErr
	for e := range errs {
		err = errors.Join(err, e)
	}
	r.report.Acked = l.count()
	return errors.Join(err, r.check(ctx, l, along))
}

func (r *run) createTopic(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.n.Kafka))
	if err != nil {
		return err
	}
	defer cl.Close()
	configs := map[string]*string{"varve.tiering.max.lag.ms": kadm.StringPtr("200"), "retention.ms": kadm.StringPtr("-1")}
	_, err = kadm.NewClient(cl).CreateTopic(ctx, int32(r.partitions), 1, configs, topic)
	return err
}

// kill ends the broker at random moments: mostly under load, sometimes while it starts.
func (r *run) kill(ctx context.Context, kills int, limit time.Duration) error {
	begin := time.Now()
	for r.report.Kills < kills && (limit == 0 || time.Since(begin) < limit) {
		time.Sleep(time.Duration(30+r.rng.IntN(1500)) * time.Millisecond)
		_ = r.n.End(syscall.SIGKILL) // its exit status is the signal
		r.report.Kills++
		for r.rng.IntN(5) == 0 && r.report.Kills < kills {
			if err := r.n.Start(); err != nil {
				return err
			}
			time.Sleep(time.Duration(r.rng.IntN(700)) * time.Millisecond)
			_ = r.n.End(syscall.SIGKILL)
			r.report.Kills++
			r.report.WhileStarted++
		}
		exec := time.Now()
		if err := r.n.Start(); err != nil {
			return err
		}
		if err := r.n.Ready(ctx); err != nil {
			return err
		}
		r.report.ReadyMs = append(r.report.ReadyMs, time.Since(exec).Milliseconds())
	}
	slices.Sort(r.report.ReadyMs)
	if k := len(r.report.ReadyMs); k > 0 {
		r.report.ReadyMedian, r.report.ReadyMax = r.report.ReadyMs[k/2], r.report.ReadyMs[k-1]
	}
	return nil
}

// check reads everything again and waits for a clean bucket.
func (r *run) check(ctx context.Context, l *ledger, along *reader) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	final := newReader(r.partitions)
	err := final.all(ctx, r.n.Kafka)
	final.compare(l, along)
	r.report.Anomalies = append(r.report.Anomalies, final.anomalies...)
	if err != nil {
		return err
	}
	for { // one scrub takes the orphans of the last crash
		var fsckErr error
		if r.report.Fsck, fsckErr = r.n.Fsck(); fsckErr == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the bucket is not clean: %s", r.report.Fsck)
		case <-time.After(time.Second):
		}
	}
	return r.n.End(syscall.SIGTERM)
}
