package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/internal/testutil/s3server"
	"github.com/varvelog/varve/test/torture/steer"
)

const (
	topic   = "stock"
	voters  = 3
	factor  = 3
	minimum = "2" // min.insync.replicas
)

// options are the flags.
type options struct {
	varve, dir, memory, only, out string
	dirBucket, verify             bool
	sets                          []string
	partitions                    int
	bytes, hot                    int64
	rate                          float64
	delay, settle, within         time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.varve, "varve", "bin/varve", "the binary")
	flag.StringVar(&o.dir, "dir", "", "where brokers and bucket keep their data; removed after a run without errors (default: a new folder for temporary files)")
	flag.StringVar(&o.memory, "memory", "1GiB", "of each broker")
	flag.StringVar(&o.only, "only", "disks,join", "cases, comma between")
	flag.StringVar(&o.out, "out", "", "where the JSON goes (default: behind the table)")
	flag.BoolVar(&o.dirBucket, "dir-bucket", false, "a directory is the bucket instead of MinIO")
	flag.BoolVar(&o.verify, "verify", true, "read every record back in the end")
	flag.Func("set", "a setting of the brokers, name=value; may be repeated", func(s string) error { o.sets = append(o.sets, s); return nil })
	flag.IntVar(&o.partitions, "partitions", 1000, "of the topic, each with three replicas")
	flag.Int64Var(&o.bytes, "bytes", 10_000_000_000, "that are written, tiered and trimmed before the cases")
	flag.Int64Var(&o.hot, "hot", 64_000_000, "that are written then; what the brokers' memory has room for stays hot")
	flag.Float64Var(&o.rate, "rate", 500, "records of 1 KB per second during the cases")
	flag.DurationVar(&o.delay, "s3-delay", 0, "that every answer of the S3 server takes longer, once the data is tiered")
	flag.DurationVar(&o.settle, "patience", 3*time.Minute, "for a case, and for the upload of what was written")
	flag.DurationVar(&o.within, "within", 30*time.Second, "a broker that comes leads its share, or that is an error (0: no matter)")
	flag.Parse()
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
		fmt.Fprintln(os.Stderr, "replace:", err)
	}
	if len(r.Errors) > 0 {
		os.Exit(1)
	}
}

// run is the cluster and what is known of it.
type run struct {
	options
	cluster *proc.Cluster
	wheel   *steer.Wheel
	far     *distance // nil where the bucket is a directory
	report  *report
}

// measure sets up, measures and checks; the report holds what there is, also beside an error.
func measure(ctx context.Context, o options) (_ *report, err error) {
	r := &run{options: o, report: &report{Partitions: o.partitions, Rate: o.rate, BucketDelayMs: o.delay.Milliseconds()}}
	began := time.Now()
	defer func() { r.report.Seconds = time.Since(began).Seconds() }()
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "varve-replace-"); err != nil {
			return r.report, err
		}
	}
	defer func() {
		if err == nil && len(r.report.Errors) == 0 {
			err = os.RemoveAll(r.dir)
		} else {
			fmt.Fprintln(os.Stderr, "replace: the data is in", r.dir)
		}
	}()
	end, err := r.start(ctx)
	if err != nil {
		return r.report, errors.Join(err, end())
	}
	defer func() { err = errors.Join(err, end()) }()
	return r.report, r.play(ctx)
}

// start starts the bucket and three brokers; there is a place for a fourth. end is to be called in any case.
func (r *run) start(ctx context.Context) (end func() error, err error) {
	var ends []func() error
	end = func() error {
		var errs []error
		for _, e := range slices.Backward(ends) {
			errs = append(errs, e())
		}
		return errors.Join(errs...)
	}
	dir, err := filepath.Abs(r.dir)
	if err != nil {
		return end, err
	}
	c := proc.ClusterOptions{Bin: r.varve, Dir: dir, Memory: r.memory, Sets: r.sets, Places: proc.Loopback(voters + 1), Bucket: "dir://" + filepath.Join(dir, "bucket")}
	if !r.dirBucket {
		s3, err := s3server.Launch(ctx, "minio", filepath.Join(dir, "s3"))
		if err != nil {
			return end, err
		}
		ends = append(ends, func() error { s3.Stop(); return nil })
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return end, err
		}
		r.far = newDistance(ln, strings.TrimPrefix(s3.Endpoint, "http://"))
		ends = append(ends, func() error { r.far.close(); return nil })
		behind := *s3
		behind.Endpoint = "http://" + ln.Addr().String()
		c.Bucket, c.Env = behind.BucketURL("varve", "replace"), s3.Env()
	}
	if r.cluster, err = proc.NewCluster(ctx, c); err != nil {
		return end, err
	}
	ends = append(ends, r.cluster.Close)
	for _, n := range r.cluster.Nodes[:voters] {
		if err := n.Start(); err != nil {
			return end, err
		}
	}
	for _, n := range r.cluster.Nodes[:voters] {
		if err := n.Ready(ctx); err != nil {
			return end, err
		}
	}
	if r.wheel, err = steer.Take(r.bootstrap(), r.cluster.Dial); err != nil {
		return end, err
	}
	ends = append(ends, func() error { r.wheel.Close(); return nil })
	return end, nil
}

// bootstrap are the brokers that are there from the beginning.
func (r *run) bootstrap() []string { return r.cluster.Bootstrap()[:voters] }
