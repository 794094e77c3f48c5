package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/varvelog/varve/test/torture/site"
)

// options are the flags.
type options struct {
	site       site.Options
	bucket     string // of one broker
	kinds      []kind
	kills      int
	seconds    int
	seed       uint64
	partitions int
	producers  int
	rate       int
	still      bool // no moves
	planOnly   bool
}

func flags() (o options) {
	flag.StringVar(&o.site.Bin, "bin", "bin/varve", "the broker's binary")
	flag.StringVar(&o.site.Dir, "dir", "", "where the data goes (default: a new temporary directory, removed after a clean run)")
	flag.IntVar(&o.site.Brokers, "brokers", 3, "how many; 1: kill -9 of one broker again and again")
	flag.StringVar(&o.bucket, "object-store", "", "with -brokers 1: the bucket (default: a directory); a cluster's is MinIO")
	flag.IntVar(&o.kills, "kills", 200, "with -brokers 1: how often the broker is killed")
	flag.IntVar(&o.seconds, "secs", 0, "how long faults go on (0: 120 with a cluster, until -kills with one broker)")
	flag.Uint64Var(&o.seed, "seed", 1, "of the workload and the plan")
	flag.IntVar(&o.partitions, "partitions", 8, "of the topic")
	flag.IntVar(&o.producers, "producers", 0, "idempotent producers (0: 3 with a cluster, 4 with one broker)")
	flag.IntVar(&o.rate, "rate", 0, "records per second and producer (0: 400 with a cluster, 2000 with one broker)")
	flag.BoolVar(&o.site.Kafka, "kafka", false, "Apache Kafka 4.3 instead, without the faults of disks and buckets")
	flag.BoolVar(&o.site.Alone, "alone", false, "brokers that know nothing of each other, clients talk to the first: for a build without clusters")
	flag.BoolVar(&o.site.Loopback, "loopback", false, "no network namespaces")
	flag.BoolVar(&o.still, "still", false, "no reassignments and elections")
	flag.BoolVar(&o.planOnly, "plan", false, "print the plan of the seed and end")
	short := flag.Bool("short", false, "about five minutes in namespaces; where there can be none, say so and do nothing")
	only := flag.String("faults", "", "kinds of faults, comma between (default: all)")
	flag.Parse()
	if *short {
		o.seconds = 200
		if err := shortable(); err != nil {
			fmt.Println("torture: skipped:", err)
			os.Exit(0)
		}
	}
	for _, w := range weights {
		if *only == "" || slices.Contains(strings.Split(*only, ","), string(w.kind)) {
			o.kinds = append(o.kinds, w.kind)
		}
	}
	byCount := func(v *int, cluster, one int) {
		if *v == 0 && o.site.Brokers > 1 {
			*v = cluster
		} else if *v == 0 {
			*v = one
		}
	}
	byCount(&o.seconds, 120, 0)
	byCount(&o.producers, 3, 4)
	byCount(&o.rate, 400, 2000)
	return o
}

func main() {
	o := flags()
	if o.planOnly {
		for _, f := range newPlan(o.seed, int32(o.site.Brokers), time.Duration(o.seconds)*time.Second, o.kinds) {
			fmt.Printf("%6.1f  %v\n", f.At.Seconds(), f)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	temp := o.site.Dir == ""
	if temp {
		dir, err := os.MkdirTemp("", "varve-torture-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "torture:", err)
			os.Exit(1)
		}
		o.site.Dir = dir
	}
	r := newReport(o)
	began := time.Now()
	var err error
	if o.site.Brokers == 1 {
		err = single(ctx, o, r)
	} else {
		err = cluster(ctx, o, r)
	}
	r.Seconds = time.Since(began).Seconds()
	if err != nil {
		r.problem("%v", err)
	}
	r.print()
	switch {
	case !r.clean():
		fmt.Fprintln(os.Stderr, "torture: logs and what is left of the data:", o.site.Dir)
		os.Exit(1)
	case temp:
		_ = os.RemoveAll(filepath.Clean(o.site.Dir)) // a temporary directory
	}
}
