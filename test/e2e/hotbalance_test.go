package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

const (
	balanceRate  = 2 << 20 // bytes per second, each second anew
	balanceSlack = 6 << 20
	perPartition = 2 << 20 // hot bytes
	partitions   = 8
)

// startSkewed starts three brokers and gives the first two all eight partitions of t, two replicas each: as many as the balance of
// numbers leaves alone.
func startSkewed(t *testing.T, configs map[string]string) (*proc.Cluster, *kgo.Client) {
	t.Helper()
	c := startCluster(t,
		fmt.Sprintf("varve.balance.hot.slack.bytes=%d", balanceSlack), "varve.balance.hot.slack.ratio=0.1",
		fmt.Sprintf("varve.balance.hot.bytes.per.second=%d", balanceRate), "varve.balance.hot.interval.ms=1000", "varve.balance.hot.enable=false")
	cl := connect(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	createOn(t, cl, configs, slices.Repeat([][]int32{{1, 2}, {2, 1}}, partitions/2)...)
	fill(t, cl)
	return c, cl
}

// fill gives every partition its hot bytes.
func fill(t *testing.T, cl *kgo.Client) {
	t.Helper()
	value := make([]byte, 64<<10)
	_, _ = rand.Read(value) // never fails
	for p := range partitions {
		for range perPartition / len(value) {
			cl.Produce(t.Context(), &kgo.Record{Topic: "t", Partition: int32(p), Value: bytes.Clone(value)}, nil)
		}
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// held counts the replicas of t that the brokers 1 to 3 have, and says whether none is being moved or out of sync.
func held(ctx context.Context, cl *kgo.Client) (n [3]int, whole bool) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx, "t")
	if whole = err == nil; !whole {
		return n, false
	}
	for _, p := range topics["t"].Partitions {
		whole = whole && len(p.Replicas) == 2 && len(p.ISR) == 2
		for _, id := range p.Replicas {
			n[id-1]++
		}
	}
	return n, whole
}

// even turns the balance on and waits until it has moved what it should: five replicas of eight, or six, are a third of sixteen. Producers
// go on, and no more moves than the rate has given.
func even(t *testing.T, cl *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adm := kadm.NewClient(cl)
	alter(t, map[string]string{"varve.balance.hot.enable": "true"}, func(ctx context.Context, ops []kadm.AlterConfig) (kadm.AlterConfigsResponses, error) {
		return adm.AlterBrokerConfigs(ctx, ops)
	})
	var first time.Time // when a move was seen
	await(t, ctx, "the third broker has its share", func() bool {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: 3, Value: []byte("meanwhile")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		n, whole := held(ctx, cl)
		if n[2] > 0 && first.IsZero() {
			first = time.Now()
		}
		given := balanceRate * (time.Since(first).Seconds() + 1)
		if moved := float64(n[2] * perPartition); moved > given+perPartition { // a partition is a little larger than a second's worth
			t.Fatalf("%.0f bytes have moved, the rate gave %.0f", moved, given)
		}
		return whole && n[2] >= 4 && max(n[0], n[1])-n[2] <= 2
	})
	t.Logf("even %v after the first move", time.Since(first))
}

// hotOn is what t has on the disk of each broker.
func hotOn(t *testing.T, cl *kgo.Client) (bytes [3]int64) {
	t.Helper()
	all, err := kadm.NewClient(cl).DescribeAllLogDirs(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all.Each(func(d kadm.DescribedLogDir) {
		for _, p := range d.Topics["t"] {
			bytes[d.Broker-1] += p.Size
		}
	})
	return bytes
}

// Where one broker has no hot bytes it gets its share of them, at the rate.
func TestHotBytesAreBalanced(t *testing.T) {
	c, cl := startSkewed(t, untiered)
	if hot := hotOn(t, cl); hot[0] < partitions*perPartition || hot[2] != 0 {
		t.Fatalf("at first: %v", hot)
	}
	even(t, cl)
	hot := hotOn(t, cl)
	if slices.Max(hot[:])-slices.Min(hot[:]) > balanceSlack {
		t.Errorf("hot bytes %v", hot)
	}
	counted := 0
	for _, n := range c.Nodes {
		counted += counter(t, n, "varve_balance_hot_bytes_total")
	}
	if counted < int(hot[2])/2 {
		t.Errorf("%d bytes are counted", counted)
	}
	t.Logf("hot bytes %v, counted %d", hot, counted)
}

// What is tiered does not move, though the leader still has all of it hot.
func TestHotBalanceMovesNoTieredBytes(t *testing.T) {
	c, cl := startSkewed(t, map[string]string{
		"min.insync.replicas": "2", "varve.tiering.max.lag.ms": "200", "local.retention.bytes": strconv.Itoa(2 * perPartition), "local.retention.ms": "-1",
		"retention.bytes": "-1", "retention.ms": "-1",
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	await(t, ctx, "all is tiered, and all of it hot", func() bool {
		settled := 0
		for _, n := range c.Nodes[:2] {
			topic, err := n.Topic(ctx, "t")
			if err != nil {
				return false
			}
			for _, p := range topic.Partitions {
				if p.Leader == n.ID && p.HighWatermark > 0 && p.TieredEndOffset == p.HighWatermark && p.HotStartOffset == 0 {
					settled++
				}
			}
		}
		return settled == partitions
	})
	even(t, cl)
	got := counter(t, c.Node(3), "varve_replication_in_bytes_total")
	if got > perPartition/4 {
		t.Errorf("broker 3 fetched %d bytes of others", got)
	}
	t.Logf("broker 3 fetched %d bytes of others; hot bytes %v", got, hotOn(t, cl))
}

// counter is what a broker's counter stands at, over all its labels.
func counter(t *testing.T, n *proc.Node, name string) int {
	t.Helper()
	m, err := n.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(m.Sum(name, ""))
}
