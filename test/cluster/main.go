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

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/internal/testutil/s3server"
)

const brokers = 3

func main() {
	var (
		varve  = flag.String("varve", "bin/varve", "the binary")
		dir    = flag.String("dir", "data/cluster", "where brokers and bucket keep their data")
		memory = flag.String("memory", "1GiB", "of each broker")
		alone  = flag.Bool("alone", false, "three clusters of one broker each instead")
		sets   []string
	)
	flag.Func("set", "a broker setting, name=value; may be repeated", func(s string) error { sets = append(sets, s); return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, proc.ClusterOptions{Bin: *varve, Dir: *dir, Memory: *memory, Sets: sets, Alone: *alone}); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// places are the ports of the contract; etcd has the pairs from 2379.
func places() []proc.Place {
	all := make([]proc.Place, brokers)
	for i := range all {
		all[i] = proc.Place{Host: "127.0.0.1", Ports: []int{9092 + 2*i, 8080 + 2*i, 2380 + 2*i, 2379 + 2*i}}
	}
	return all
}

// run starts all, waits for the end of ctx or of a broker, and stops the brokers before their bucket.
func run(ctx context.Context, dir string, o proc.ClusterOptions) (err error) {
	began := time.Now()
	s3, err := s3server.Launch(ctx, "minio", filepath.Join(dir, "s3"))
	if err != nil {
		return err
	}
	defer s3.Stop()
	o.Places, o.Bucket, o.Env = places(), s3.BucketURL("varve", "cluster"), s3.Env()
	c, err := proc.NewCluster(ctx, o)
	if err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		err = errors.Join(err, c.Close())
		if ctx.Err() != nil {
			return nil // Ctrl-C while it started
		}
		return err
	}
	fmt.Print(welcome(c, s3, dir, o.Bin, time.Since(began)))
	err = keep(ctx, c)
	fmt.Println("\nstopping")
	return errors.Join(err, c.Stop())
}

// again is how long a broker that has ended stays away, so that one can look at a cluster without it.
const again = 10 * time.Second

// keep starts brokers again that have ended, until ctx ends.
func keep(ctx context.Context, c *proc.Cluster) error {
	ended := make(chan *proc.Node, len(c.Nodes))
	watch := func(n *proc.Node) {
		exited := n.Exited()
		go func() { <-exited; ended <- n }()
	}
	for _, n := range c.Nodes {
		watch(n)
	}
	for {
		var n *proc.Node
		select {
		case n = <-ended:
		case <-ctx.Done():
			return nil
		}
		fmt.Printf("broker %d has ended; it starts again in %s\n", n.ID, again)
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil
		}
		if err := n.Start(); err != nil {
			return err
		}
		watch(n)
	}
}

func welcome(c *proc.Cluster, s3 *s3server.Server, dir, bin string, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "A cluster of %d brokers is ready after %.1f s.\n", len(c.Nodes), took.Seconds())
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "  broker %d  Kafka %s  HTTP http://%s  process %d  log %s\n", n.ID, n.Kafka, n.HTTP, n.Pid(), n.LogPath())
	}
	fmt.Fprintf(&b, "  bucket    %s\n  its keys  export %s\n  data      %s\n", s3.BucketURL("varve", "cluster"), strings.Join(s3.Env(), " "), dir)
	boot := strings.Join(c.Bootstrap(), ",")
	fmt.Fprintf(&b, "Try: %s topic create hello --partitions 6 --replication-factor 3 --bootstrap %s\n", bin, boot)
	fmt.Fprintf(&b, "     kill -9 %d        # a broker, which starts again after %s; Ctrl-C stops all\n", c.Nodes[0].Pid(), again)
	return b.String()
}
