package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/cmd/varve/load"
)

func newBenchCommand(a *app) *cobra.Command {
	return noun("bench", "Measure a broker, and check that it keeps every record", newBenchProduce(a), newBenchConsume(a), newBenchLatency(a))
}

// benchOptions are the flags that the bench commands share.
type benchOptions struct {
	load.Options
	pid         int
	create      bool
	replication int16
}

func benchFlags(c *cobra.Command, o *benchOptions) {
	f := c.Flags()
	f.StringVarP(&o.Topic, "topic", "t", "varve-bench", "topic")
	f.IntVar(&o.Connections, "connections", 1, "clients; each has its share of the partitions")
	f.IntVar(&o.pid, "pid", 0, "the broker's process id: report its CPU seconds per GB, bytes written and memory (Linux)")
	f.DurationVar(&o.Duration, "duration", 0, "end after this time")
}

func benchProduceFlags(c *cobra.Command, o *benchOptions) {
	f := c.Flags()
	f.IntVar(&o.SizeBytes, "size", 1024, fmt.Sprintf("bytes of a value, at least %d", load.HeadSize))
	f.Int32VarP(&o.Partitions, "partitions", "p", 16, "partitions, where the topic is created")
	f.Int16VarP(&o.replication, "replication-factor", "r", -1, "copies, where the topic is created")
	f.BoolVar(&o.create, "create", true, "create the topic where it is missing")
	f.StringVar(&o.Acks, "acks", "all", "all (idempotent), leader or none")
	f.StringVar(&o.Compression, "compression", "none", "none, gzip, snappy, lz4 or zstd")
	f.Uint64Var(&o.Seed, "seed", 0, "number of the run, and seed of its payload (0: random)")
}

// prepare finds the topic, or creates it, and fills in the number of partitions that it has.
func (a *app) prepare(ctx context.Context, o *benchOptions) error {
	cl, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	o.Seeds = strings.Split(a.bootstrap, ",")
	if o.create {
		_, err := adm.CreateTopic(ctx, o.Partitions, o.replication, nil, o.Topic)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", o.Topic, err)
		}
	}
	n, err := awaitLeaders(ctx, adm, o.Topic)
	o.Partitions = n
	return err
}

// awaitLeaders answers the number of partitions once the leader of each answers: a new topic's may take a moment.
func awaitLeaders(ctx context.Context, adm *kadm.Client, topic string) (int32, error) {
	const patience, pause = 15 * time.Second, 50 * time.Millisecond
	deadline := time.Now().Add(patience)
	for {
		listed, err := adm.ListEndOffsets(ctx, topic) // asks the leaders themselves
		if err == nil {
			err = listed.Error()
		}
		if n := len(listed[topic]); err == nil && n > 0 {
			return int32(n), nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return 0, fmt.Errorf("topic %s is not ready after %s: %w", topic, patience, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// brokerCost is what a process used during a run.
type brokerCost struct {
	CPUSeconds      float64 `json:"cpuSeconds"`
	CPUSecondsPerGB float64 `json:"cpuSecondsPerGB"`
	WriteBytes      int64   `json:"writeBytes"`
	WrittenPerByte  float64 `json:"writtenPerByte"`
	RSSBytes        int64   `json:"rssBytes"`
	PeakBytes       int64   `json:"peakRssBytes"`
}

// measured runs fn and answers what the process pid used meanwhile; nil where pid is 0. bytes is asked for after fn.
func measured(pid int, fn func() error, bytes func() int64) (*brokerCost, error) {
	if pid == 0 {
		return nil, fn()
	}
	before, err := load.ReadUsage(pid)
	if err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	after, err := load.ReadUsage(pid)
	if err != nil {
		return nil, err
	}
	c := &brokerCost{
		CPUSeconds: after.CPUSeconds - before.CPUSeconds, WriteBytes: after.WriteBytes - before.WriteBytes,
		RSSBytes: after.RSSBytes, PeakBytes: after.PeakBytes,
	}
	if n := float64(bytes()); n > 0 {
		c.CPUSecondsPerGB = c.CPUSeconds / (n / 1e9)
		c.WrittenPerByte = float64(c.WriteBytes) / n
	}
	return c, nil
}

// throughput is the rate of a run.
type throughput struct {
	MBPerSecond      float64 `json:"mbPerSecond"`
	RecordsPerSecond float64 `json:"recordsPerSecond"`
	Seconds          float64 `json:"seconds"`
}

func rate(records, bytes int64, took time.Duration) throughput {
	s := took.Seconds()
	return throughput{float64(bytes) / 1e6 / s, float64(records) / s, s}
}

func (t *table) addRate(r throughput) {
	t.add("seconds", fmt.Sprintf("%.2f", r.Seconds))
	t.add("MB/s", fmt.Sprintf("%.1f", r.MBPerSecond))
	t.add("records/s", fmt.Sprintf("%.0f", r.RecordsPerSecond))
}

func (t *table) addQuantiles(what string, q load.Quantiles) {
	t.add(what, fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, p999 %.2f ms, max %.2f ms", q.P50Ms, q.P99Ms, q.P999Ms, q.MaxMs))
}

func (t *table) addCost(c *brokerCost) {
	if c == nil {
		return
	}
	t.add("broker CPU", fmt.Sprintf("%.2f s, %.2f s/GB", c.CPUSeconds, c.CPUSecondsPerGB))
	t.add("broker disk writes", fmt.Sprintf("%.1f MB, %.2f bytes per byte", float64(c.WriteBytes)/1e6, c.WrittenPerByte))
	t.add("broker memory", fmt.Sprintf("%.0f MB, peak %.0f MB", float64(c.RSSBytes)/1e6, float64(c.PeakBytes)/1e6))
}
