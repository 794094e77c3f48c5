package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/cmd/varve/load"
	"github.com/varvelog/varve/internal/testutil/proc"
)

// system is what is under measurement: one broker, or a cluster.
type system struct {
	*proc.Cluster
	name     string // "kafka", "varve"
	replicas int16  // of each topic
	cl       *kgo.Client
	adm      *kadm.Client
}

const (
	heap   = "1G"   // of each JVM, as Kafka's start script sets it
	budget = "1GiB" // --memory of each Varve of a cluster; one alone takes its default
)

// startSystem starts brokers on this machine: Varve's with their shared bucket in a local directory, Kafka's each a broker and a
// controller in one process.
func startSystem(ctx context.Context, o options, name, dir string, brokers int) (*system, error) {
	c := proc.ClusterOptions{Bin: o.varve, Dir: dir, Places: proc.Loopback(brokers), Sets: o.set}
	if name == "kafka" {
		c.Kafka = &proc.KafkaOptions{Libs: o.libs, Heap: heap}
		if brokers == 1 {
			c.Kafka.Set = map[string]string{"transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1"}
		}
	} else if brokers > 1 {
		c.Memory = budget
		c.Bucket = "dir://" + filepath.Join(dir, "bucket")
	}
	if name != "kafka" && o.profile != "" {
		c.Extra = func(n *proc.Node) error {
			n.Args = append(n.Args, "--profiling")
			return nil
		}
	}
	cluster, err := proc.NewCluster(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &system{Cluster: cluster, name: name, replicas: int16(min(brokers, 3))}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Bootstrap()...), kgo.MetadataMinAge(metadataMinAge))
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.cl, s.adm = cl, kadm.NewClient(cl)
	return s, nil
}

// metadataMinAge is how soon a client may ask again where leaders are.
const metadataMinAge = 100 * time.Millisecond

// Stop ends the brokers.
func (s *system) Stop() error {
	s.adm.Close()
	return s.Cluster.Stop()
}

// topic creates a topic and waits until all of its leaders answer and all of its replicas are in sync.
func (s *system) topic(ctx context.Context, name string, partitions int32) error {
	if _, err := s.adm.CreateTopic(ctx, partitions, s.replicas, s.topicSettings(), name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return poll(ctx, 60*time.Second, func() error { return s.whole(ctx, partitions, name) })
}

// topicSettings ask of a cluster that two of three replicas have a record before it is acknowledged.
func (s *system) topicSettings() map[string]*string {
	if s.replicas == 1 {
		return nil
	}
	insync := strconv.Itoa(int(s.replicas) - 1)
	return map[string]*string{"min.insync.replicas": &insync}
}

// whole is nil where every partition has a leader that answers, not only one that is named, and all replicas in sync.
func (s *system) whole(ctx context.Context, partitions int32, names ...string) error {
	topics, err := s.adm.ListTopics(ctx, names...)
	if err != nil {
		return err
	}
	listed, err := s.adm.ListEndOffsets(ctx, names...)
	if err == nil {
		err = listed.Error()
	}
	for _, name := range names {
		for _, p := range topics[name].Partitions {
			if len(p.ISR) != int(s.replicas) && err == nil {
				err = fmt.Errorf("partition %d of %s: in sync are %d", p.Partition, name, p.ISR)
			}
		}
		if got := len(listed[name]); err == nil && got != int(partitions) {
			err = fmt.Errorf("%d of %d partitions of %s answer", got, partitions, name)
		}
	}
	return err
}

// snapshot is what the brokers have used since their start, and where the bytes that they wrote have gone, as far as they say so.
type snapshot struct {
	load.Usage                    // CPU and bytes are sums, memory is that of the broker which has most
	written    map[string]float64 // by part; of Varve only
}

func (s *system) usage(ctx context.Context) (snapshot, error) {
	sum := snapshot{written: map[string]float64{}}
	for _, n := range s.Nodes {
		u, err := load.ReadUsage(n.Pid())
		if err != nil {
			return sum, err
		}
		if n.HTTP != "" {
			m, err := n.Metrics(ctx)
			if err != nil {
				return sum, err
			}
			for _, p := range parts {
				sum.written[p.part] += m.Sum(p.name, p.label)
			}
		}
		sum.CPUSeconds += u.CPUSeconds
		sum.WriteBytes += u.WriteBytes
		sum.RSSBytes, sum.PeakBytes = max(sum.RSSBytes, u.RSSBytes), max(sum.PeakBytes, u.PeakBytes)
	}
	return sum, nil
}

// parts name the metrics that count bytes written to disk. With the default bucket, a local directory, what goes to the
// object store is written by this process too.
var parts = []struct{ part, name, label string }{
	{"WAL", "varve_hot_written", `part="wal"`},
	{"flush", "varve_hot_written", `part="flush"`},
	{"compaction", "varve_hot_written", `part="compaction"`},
	{"bucket", "varve_tiering_uploaded_bytes", ""},
}

// tiers sums up what one Varve says about a topic.
type tiers struct{ highWatermark, tieredEnd, hotStart, tieredBytes int64 }

func (s *system) tiers(ctx context.Context, topic string) (tiers, error) {
	answer, err := s.Nodes[0].Topic(ctx, topic)
	if err != nil {
		return tiers{}, err
	}
	var t tiers
	for _, p := range answer.Partitions {
		t.highWatermark += p.HighWatermark
		t.tieredEnd += p.TieredEndOffset
		t.hotStart += p.HotStartOffset
		t.tieredBytes += p.TieredBytes
	}
	return t, nil
}

// makeCold has Varve offload and trim all of a topic. Apache Kafka has no such tier: its oldest data is on its own disk.
func (s *system) makeCold(ctx context.Context, topic string) error {
	if s.name == "kafka" {
		return nil
	}
	soon, lag := "1000", "1000"
	res, err := s.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "local.retention.ms", Value: &soon}, {Op: kadm.SetConfig, Name: "varve.tiering.max.lag.ms", Value: &lag},
	}, topic)
	for _, r := range res {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		return fmt.Errorf("make %s cold: %w", topic, err)
	}
	return poll(ctx, 2*time.Minute, func() error {
		t, err := s.tiers(ctx, topic)
		if err == nil && (t.tieredEnd < t.highWatermark || t.hotStart < t.highWatermark*99/100) {
			err = fmt.Errorf("%s is not cold: %d records, tiered %d, trimmed %d", topic, t.highWatermark, t.tieredEnd, t.hotStart)
		}
		return err
	})
}

// poll asks until the answer is nil.
func poll(ctx context.Context, patience time.Duration, ask func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("after %s: %w", patience, err)
		case <-tick.C:
		}
	}
}
