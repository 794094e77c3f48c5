package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/varvelog/varve/cmd/varve/load"
)

// workload is one thing that is done to a broker or a cluster. scale divides the amount of data.
type workload struct {
	name   string
	always bool // not measured, but the others need it
	// acks: the table shows how long acknowledgements took. At full speed that is the length of the producer's own queue (64 MiB a
	// connection) over the throughput, and so says little beside it.
	acks bool
	run  func(ctx context.Context, s *system, scale int64) (measurement, error)
}

const (
	mib         = 1 << 20
	connections = 2 // clients of a full-speed producer: one per core of the machine that this was written on
	wide        = 1000
	stick       = 64 // records of 1 KB that the generator sends to one partition before the next
)

// workloads in their order: the cold read needs what produce-1k wrote, and so comes after it.
func workloads() []workload {
	return []workload{
		{name: "idle", run: idle},
		{name: "warm-up", always: true, run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return produce(ctx, s, load.Options{Topic: "warm-up", Partitions: 16, SizeBytes: 1024, Records: 96 * mib / 1024 / scale})
		}},
		{name: "produce-1k", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return produce(ctx, s, load.Options{Topic: "p1k", Partitions: 16, SizeBytes: 1024, Records: 1536 * mib / 1024 / scale, Seed: 1})
		}},
		{name: "produce-100b", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return produce(ctx, s, load.Options{Topic: "p100", Partitions: 16, SizeBytes: 100, Records: 384 * mib / 100 / scale})
		}},
		{name: "tail-1k", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return tail(ctx, s, load.Options{Topic: "t1k", Partitions: 16, SizeBytes: 1024, Records: 768 * mib / 1024 / scale})
		}},
		{name: "latency-5k", acks: true, run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return latency(ctx, s, load.Options{Topic: "lat", Partitions: 16, SizeBytes: 1024, Rate: 5000}, 24*time.Second/time.Duration(scale))
		}},
		{name: "wide-1000", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			o := load.Options{Topic: "wide", Partitions: wide, SizeBytes: 1024, Records: 384 * mib / 1024 / scale}
			first := o
			first.Records = wide * stick // the first batch of a partition creates its files
			if _, err := produce(ctx, s, first); err != nil {
				return measurement{}, err
			}
			return produce(ctx, s, o)
		}},
		{name: "catch-up-cold", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return catchUp(ctx, s, "p1k", 16, 1536*mib/1024/scale)
		}},
	}
}

// idle measures what the broker costs while nobody asks.
func idle(ctx context.Context, s *system, _ int64) (measurement, error) {
	const settle, watch = 3 * time.Second, 5 * time.Second
	if err := pause(ctx, settle); err != nil { // what a start leaves to do
		return measurement{}, err
	}
	before, err := s.usage(ctx)
	if err != nil {
		return measurement{}, err
	}
	if err := pause(ctx, watch); err != nil {
		return measurement{}, err
	}
	after, err := s.usage(ctx)
	return measurement{RSSBytes: after.RSSBytes, CPUPercent: 100 * (after.CPUSeconds - before.CPUSeconds) / watch.Seconds()}, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func produce(ctx context.Context, s *system, o load.Options) (measurement, error) {
	if err := s.topic(ctx, o.Topic, o.Partitions); err != nil {
		return measurement{}, err
	}
	o.Seeds, o.Connections = s.Bootstrap(), connections
	before, err := s.usage(ctx)
	if err != nil {
		return measurement{}, err
	}
	p, err := load.Produce(ctx, o)
	if err == nil && p.Failed > 0 {
		err = fmt.Errorf("%d records failed: %s", p.Failed, p.FirstError)
	}
	if err != nil {
		return measurement{}, err
	}
	m := measurement{MBPerSecond: perSecond(p.Bytes, p.Elapsed), RecordsPerSecond: float64(p.Records) / p.Elapsed.Seconds(), Ack: p.Latency, Bytes: p.Bytes}
	return s.cost(ctx, m, before)
}

// cost adds what the broker used since before.
func (s *system) cost(ctx context.Context, m measurement, before snapshot) (measurement, error) {
	after, err := s.usage(ctx)
	if err != nil {
		return m, err
	}
	gb := float64(m.Bytes) / 1e9
	m.CPUPerGB = (after.CPUSeconds - before.CPUSeconds) / gb
	m.WrittenPerByte = float64(after.WriteBytes-before.WriteBytes) / float64(m.Bytes)
	m.RSSBytes, m.PeakBytes = after.RSSBytes, after.PeakBytes
	for part, n := range after.written {
		if grown := n - before.written[part]; grown > 0 {
			if m.Parts == nil {
				m.Parts = map[string]float64{}
			}
			m.Parts[part] = grown / float64(m.Bytes)
		}
	}
	return m, nil
}

// tail measures a producer and the consumer that keeps up with it, together.
func tail(ctx context.Context, s *system, o load.Options) (measurement, error) {
	if err := s.topic(ctx, o.Topic, o.Partitions); err != nil {
		return measurement{}, err
	}
	o.Seeds = s.Bootstrap()
	from := map[int32]int64{}
	for p := range o.Partitions {
		from[p] = 0
	}
	before, err := s.usage(ctx)
	if err != nil {
		return measurement{}, err
	}
	produced := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		p, err := load.Produce(ctx, o)
		if err == nil && p.Failed > 0 {
			err = fmt.Errorf("%d records failed: %s", p.Failed, p.FirstError)
		}
		produced <- err
	}()
	c, err := load.Consume(ctx, load.ConsumeOptions{Options: o, From: from})
	if err = errors.Join(err, c.Integrity.Err()); err != nil {
		cancel()
		return measurement{}, errors.Join(err, <-produced)
	}
	if err := <-produced; err != nil {
		return measurement{}, err
	}
	m := measurement{MBPerSecond: perSecond(c.Bytes, c.Elapsed), RecordsPerSecond: float64(c.Records) / c.Elapsed.Seconds(), EndToEnd: c.Latency, Bytes: c.Bytes}
	return s.cost(ctx, m, before)
}

func latency(ctx context.Context, s *system, o load.Options, took time.Duration) (measurement, error) {
	if err := s.topic(ctx, o.Topic, o.Partitions); err != nil {
		return measurement{}, err
	}
	o.Seeds, o.Duration = s.Bootstrap(), took/4
	if _, err := load.Latency(ctx, o); err != nil { // a JVM compiles meanwhile
		return measurement{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := s.usage(ctx)
	if err != nil {
		return measurement{}, err
	}
	o.Duration = took
	l, err := load.Latency(ctx, o)
	if err = errors.Join(err, l.Consume.Integrity.Err()); err != nil {
		return measurement{}, err
	}
	m := measurement{Ack: l.Produce.Latency, EndToEnd: l.Consume.Latency, Bytes: l.Produce.Bytes}
	m.MBPerSecond, m.RecordsPerSecond = perSecond(m.Bytes, l.Produce.Elapsed), float64(l.Produce.Records)/l.Produce.Elapsed.Seconds()
	return s.cost(ctx, m, before)
}

// catchUp reads a topic from its first offset: from the bucket where the broker has one, from its disk where not.
func catchUp(ctx context.Context, s *system, topic string, partitions int32, records int64) (measurement, error) {
	if err := s.makeCold(ctx, topic); err != nil {
		return measurement{}, err
	}
	before, err := s.usage(ctx)
	if err != nil {
		return measurement{}, err
	}
	c, err := load.Consume(ctx, load.ConsumeOptions{Options: load.Options{Seeds: s.Bootstrap(), Topic: topic, Partitions: partitions}})
	if err = errors.Join(err, c.Integrity.Err()); err == nil && c.Records != records {
		err = fmt.Errorf("%d records where %d were written", c.Records, records)
	}
	if err != nil {
		return measurement{}, err
	}
	m := measurement{MBPerSecond: perSecond(c.Bytes, c.Elapsed), RecordsPerSecond: float64(c.Records) / c.Elapsed.Seconds(), Bytes: c.Bytes}
	return s.cost(ctx, m, before)
}

func perSecond(bytes int64, d time.Duration) float64 { return float64(bytes) / 1e6 / d.Seconds() }
