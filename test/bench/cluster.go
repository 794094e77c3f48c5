package main

import (
	"context"
	"time"

	"github.com/varvelog/varve/cmd/varve/load"
)

// brokers of the cluster; topics have as many replicas, two of which must have a record (min.insync.replicas) before it is
// acknowledged (acks=all, idempotent).
const brokers = 3

const (
	clusterRate = 2000 // records of 1 KB per second at which both systems' latencies are compared
	clusterWide = 300  // partitions
)

// clusterWorkloads are what a cluster is measured by, in their order. Amounts are smaller than one broker's: every byte is
// written three times by the same two cores.
func clusterWorkloads() []workload {
	return []workload{
		{name: "3x-idle", run: idle},
		{name: "3x-warm-up", always: true, run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return produce(ctx, s, load.Options{Topic: "warm-up", Partitions: 16, SizeBytes: 1024, Records: 192 * mib / 1024 / scale})
		}},
		{name: "3x-produce-1k", acks: true, run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return produce(ctx, s, load.Options{Topic: "p1k", Partitions: 16, SizeBytes: 1024, Records: 768 * mib / 1024 / scale, Seed: 1})
		}},
		{name: "3x-latency-2k", acks: true, run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			o := load.Options{Topic: "lat", Partitions: 16, SizeBytes: 1024, Rate: clusterRate}
			return latency(ctx, s, o, 24*time.Second/time.Duration(scale))
		}},
		{name: "3x-tail-1k", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return tail(ctx, s, load.Options{Topic: "t1k", Partitions: 16, SizeBytes: 1024, Records: 384 * mib / 1024 / scale})
		}},
		{name: "3x-produce-100b", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			return produce(ctx, s, load.Options{Topic: "p100", Partitions: 16, SizeBytes: 100, Records: 192 * mib / 100 / scale})
		}},
		{name: "3x-wide-300", run: func(ctx context.Context, s *system, scale int64) (measurement, error) {
			o := load.Options{Topic: "wide", Partitions: clusterWide, SizeBytes: 1024, Records: 384 * mib / 1024 / scale}
			first := o
			first.Records = clusterWide * stick // the first batch of a partition creates its files
			if _, err := produce(ctx, s, first); err != nil {
				return measurement{}, err
			}
			return produce(ctx, s, o)
		}},
	}
}
