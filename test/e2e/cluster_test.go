package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// startCluster starts three brokers, in the racks r1, r2 and r3.
func startCluster(t *testing.T, sets ...string) *proc.Cluster {
	t.Helper()
	dir := t.TempDir()
	c, err := proc.NewCluster(t.Context(), proc.ClusterOptions{
		Bin: varve, Dir: dir, Places: proc.Loopback(3), Bucket: "dir://" + filepath.Join(dir, "bucket"), Memory: "256MiB", Sets: sets,
		Racks: []string{"r1", "r2", "r3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func connect(t *testing.T, c *proc.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(c.Bootstrap()...), kgo.MetadataMinAge(50 * time.Millisecond), kgo.MetadataMaxAge(time.Second),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func createReplicated(t *testing.T, cl *kgo.Client, topic string, partitions int32) {
	t.Helper()
	two, soon := "2", "200"
	configs := map[string]*string{"min.insync.replicas": &two, "varve.tiering.max.lag.ms": &soon}
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 3, configs, topic); err != nil {
		t.Fatal(err)
	}
}

func produceNumbers(t *testing.T, cl *kgo.Client, topic string, from, to int) {
	t.Helper()
	rs := make([]*kgo.Record, 0, to-from)
	for i := from; i < to; i++ {
		rs = append(rs, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i%7), Value: fmt.Append(nil, i)})
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// readNumbers reads until it has n records of the client's topics, each once.
func readNumbers(t *testing.T, cl *kgo.Client, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := map[string]bool{}
	for len(seen) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(seen), n, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if seen[string(r.Value)] {
				t.Fatalf("record %s came twice", r.Value)
			}
			seen[string(r.Value)] = true
		})
	}
}

// Each broker in turn is killed, and loses its disk: what was acknowledged stays, and a group goes on where it has committed.
func TestClusterLosesItsDisks(t *testing.T) {
	c := startCluster(t, "varve.scrub.interval.ms=3000", "varve.hot.bytes=1024")
	cl := connect(t, c)
	createReplicated(t, cl, "t", 6)
	group := []kgo.Opt{kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g"), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
	for i, n := range c.Nodes {
		produceNumbers(t, cl, "t", i*1000, (i+1)*1000)
		member := connect(t, c, group...)
		readNumbers(t, member, 1000)
		if err := member.CommitUncommittedOffsets(t.Context()); err != nil {
			t.Fatal(err)
		}
		member.CloseAllowingRebalance()
		if err := n.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := n.Wipe(); err != nil {
			t.Fatal(err)
		}
		boot(t, n)
		inSync(t, cl, 3)
	}
	readNumbers(t, connect(t, c, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), 3000)
}

// inSync waits until all partitions have so many replicas in sync.
func inSync(t *testing.T, cl *kgo.Client, replicas int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		topics, err := kadm.NewClient(cl).ListTopicsWithInternal(ctx)
		if err != nil && ctx.Err() != nil {
			t.Fatal("the ISRs do not fill")
		}
		missing := 0
		topics.EachPartition(func(p kadm.PartitionDetail) {
			if len(p.ISR) < replicas || p.Leader < 0 {
				missing++
			}
		})
		if err == nil && missing == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d partitions miss a replica", missing)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sources notes which brokers gave records.
type sources struct{ sync.Map }

func (s *sources) OnFetchBatchRead(meta kgo.BrokerMetadata, _ string, _ int32, _ kgo.FetchBatchMetrics) {
	s.Store(meta.NodeID, true)
}

func (s *sources) all() (ids []int32) {
	s.Range(func(id, _ any) bool { ids = append(ids, id.(int32)); return true })
	slices.Sort(ids)
	return ids
}

// A consumer reads from the replica in its rack, whoever leads (KIP-392).
func TestConsumerReadsInItsRack(t *testing.T) {
	c := startCluster(t, "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector")
	cl := connect(t, c)
	createReplicated(t, cl, "t", 6)
	produceNumbers(t, cl, "t", 0, 500)
	var from sources
	readNumbers(t, connect(t, c, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Rack("r2"), kgo.WithHooks(&from)), 500)
	if got := from.all(); !slices.Equal(got, []int32{2}) {
		t.Errorf("records came from brokers %v, the consumer's rack has broker 2", got)
	}
}
