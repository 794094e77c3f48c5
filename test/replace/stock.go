package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/varvelog/varve/cmd/varve/load"
	"github.com/varvelog/varve/test/torture/steer"
)

const (
	valueBytes = 4096
	sealAfter  = "10000"    // ms, varve.tiering.max.lag.ms while the stock is written
	stayHot    = "86400000" // and afterwards: what is written then is sealed under pressure only
	poll       = 200 * time.Millisecond
)

// fill writes so many bytes at full speed, as another run of the generator than any before.
func (r *run) fill(ctx context.Context, bytes int64) error {
	p, err := load.Produce(ctx, load.Options{
		Seeds: r.bootstrap(), Topic: topic, Partitions: int32(r.partitions), Records: max(1, bytes/valueBytes), SizeBytes: valueBytes, Connections: 2, Seed: r.seed(),
	})
	if err == nil {
		err = r.took(p)
	}
	return err
}

// seed is another one for each run of the generator.
func (r *run) seed() uint64 {
	r.report.Runs++
	return uint64(r.report.Runs)
}

// took notes what a producer was told is there.
func (r *run) took(p load.Produced) error {
	r.report.Acked += p.Records
	if p.Failed > 0 {
		return fmt.Errorf("%d records were refused: %s", p.Failed, p.FirstError)
	}
	return nil
}

// stock creates the topic and writes what is tiered and trimmed when it returns, and then what stays hot.
func (r *run) stock(ctx context.Context) error {
	placement := steer.Spread([]int32{1, 2, 3}, r.partitions, factor)
	configs := map[string]string{"min.insync.replicas": minimum, "local.retention.bytes": "0", "retention.ms": "-1", "varve.tiering.max.lag.ms": sealAfter}
	setup, cancel := context.WithTimeout(ctx, r.settle)
	defer cancel()
	if err := r.wheel.Create(setup, topic, placement, configs); err != nil {
		return err
	}
	began := time.Now()
	if err := r.fill(ctx, r.bytes); err != nil {
		return err
	}
	r.report.FillSeconds = time.Since(began).Seconds()
	say("%.1f GB are written after %.0f s", float64(r.bytes)/1e9, r.report.FillSeconds)
	if err := r.trimmed(ctx); err != nil {
		return err
	}
	say("all is tiered and trimmed after %.0f s", time.Since(began).Seconds())
	lag := kadm.AlterConfig{Op: kadm.SetConfig, Name: "varve.tiering.max.lag.ms", Value: kadm.StringPtr(stayHot)}
	answers, err := r.wheel.Admin().AlterTopicConfigs(ctx, []kadm.AlterConfig{lag}, topic)
	if err == nil && answers[0].Err != nil {
		err = answers[0].Err
	}
	if err != nil {
		return err
	}
	if err := r.fill(ctx, r.hot); err != nil {
		return err
	}
	if r.far != nil {
		r.far.set(r.delay)
	}
	s, err := r.tiers(ctx, 1)
	r.report.TieredBytes, r.report.TieredSegments = s.tiered, s.segments
	return err
}

// tiers is what a broker says of the topic; all brokers have a replica of every partition in the beginning.
type tiers struct {
	hot, tiered, segments int64
	open                  int // partitions of which the newest record is not tiered
}

func (r *run) tiers(ctx context.Context, id int32) (s tiers, err error) {
	t, err := r.cluster.Node(id).Topic(ctx, topic)
	for _, p := range t.Partitions {
		s.hot += p.HotBytes
		s.tiered += p.TieredBytes
		s.segments += p.TieredObjects
		if p.TieredEndOffset < p.HighWatermark {
			s.open++
		}
	}
	return s, err
}

// trimmed waits until no broker has anything hot.
func (r *run) trimmed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.settle)
	defer cancel()
	for {
		hot, open := int64(0), 0
		for _, n := range r.cluster.Nodes[:voters] {
			s, err := r.tiers(ctx, n.ID)
			if err != nil {
				return err
			}
			hot, open = hot+s.hot, open+s.open
		}
		if hot == 0 && open == 0 {
			return nil
		}
		if !wait(ctx, poll) {
			return fmt.Errorf("%d bytes are still hot, of %d replicas the end is not tiered: %w", hot, open, ctx.Err())
		}
	}
}

// check reads all records back.
func (r *run) check(ctx context.Context) error {
	if r.far != nil {
		r.far.set(0)
	}
	began := time.Now()
	c, err := load.Consume(ctx, load.ConsumeOptions{
		Options: load.Options{Seeds: r.bootstrap(), Topic: topic, Partitions: int32(r.partitions), Connections: 2}, Idle: time.Minute,
	})
	r.report.ReadBack, r.report.ReadSeconds = c.Records, time.Since(began).Seconds()
	switch {
	case err != nil:
		return fmt.Errorf("read back: %w", err)
	case c.Integrity.Err() != nil:
		return c.Integrity.Err()
	case c.Records != r.report.Acked:
		return fmt.Errorf("%d records are there, %d were acknowledged", c.Records, r.report.Acked)
	}
	return nil
}

// wait reports whether so much time has passed before the end of ctx.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
