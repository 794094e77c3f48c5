// Package steer moves what an operator can move in a cluster over the Kafka protocol, Varve's or Apache Kafka's: leaders, replicas, topics
// with known leaders; and it waits until a cluster is whole.
package steer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	dialTimeout = time.Second
	overhead    = 3 * time.Second // that a request may take beyond its own time-out: some broker may be paused
	look        = 50 * time.Millisecond
)

// Wheel is a connection to a cluster. Its methods may be called from any goroutine.
type Wheel struct {
	cl  *kgo.Client
	adm *kadm.Client
}

// Take connects to a cluster by any of the addresses.
func Take(bootstrap []string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Wheel, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap...), kgo.RequestTimeoutOverhead(overhead), kgo.RetryTimeout(4*overhead), kgo.MetadataMinAge(look),
		kgo.RetryBackoffFn(func(int) time.Duration { return look }), kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return dial(ctx, network, address)
		}))
	if err != nil {
		return nil, err
	}
	return &Wheel{cl, kadm.NewClient(cl)}, nil
}

// Close ends the connections.
func (w *Wheel) Close() { w.adm.Close() }

// Admin is what else one may ask.
func (w *Wheel) Admin() *kadm.Client { return w.adm }

// Spread is the placement of a topic's partitions: the first replica, which is to lead, goes round the brokers.
func Spread(brokers []int32, partitions, factor int) [][]int32 {
	all := make([][]int32, partitions)
	for p := range all {
		for k := range min(factor, len(brokers)) {
			all[p] = append(all[p], brokers[(p+k)%len(brokers)])
		}
	}
	return all
}

// Create makes a topic with a placement and waits until every partition has all its replicas in sync.
func (w *Wheel) Create(ctx context.Context, topic string, placement [][]int32, configs map[string]string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, -1, -1
	for p, replicas := range placement {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(p), replicas
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	for name, value := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, w.cl)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			why := ""
			if t.ErrorMessage != nil {
				why = *t.ErrorMessage
			}
			return fmt.Errorf("create topic %s: %w: %s", topic, err, why)
		}
	}
	return w.await(ctx, func() error { return w.InSync(ctx, topic) })
}

// InSync is nil where every partition of the topics, or of all topics where none is named, has a leader and all replicas in sync. A leader
// that is named also has to answer.
func (w *Wheel) InSync(ctx context.Context, topics ...string) error {
	details, err := w.adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return err
	}
	if err := details.Error(); err != nil {
		return err
	}
	for _, t := range details {
		for _, p := range t.Partitions {
			if p.Err != nil {
				return fmt.Errorf("%s-%d: %w", t.Topic, p.Partition, p.Err)
			}
			if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
				return fmt.Errorf("%s-%d: leader %d, replicas %v, in sync %v", t.Topic, p.Partition, p.Leader, p.Replicas, p.ISR)
			}
		}
	}
	ends, err := w.adm.ListEndOffsets(ctx, details.Names()...)
	if err != nil {
		return err
	}
	return ends.Error()
}

// Balanced is nil where every partition of a topic is led by its first replica.
func (w *Wheel) Balanced(ctx context.Context, topic string) error {
	leaders, placement, err := w.Leaders(ctx, topic)
	if err != nil {
		return err
	}
	for p, leader := range leaders {
		if leader != placement[p][0] {
			return fmt.Errorf("%s-%d: leader %d, preferred %v", topic, p, leader, placement[p])
		}
	}
	return nil
}

// Leaders are a topic's leaders and replicas by partition.
func (w *Wheel) Leaders(ctx context.Context, topic string) (leaders []int32, placement [][]int32, err error) {
	details, err := w.adm.ListTopics(ctx, topic)
	if err == nil {
		err = details.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	for _, p := range details[topic].Partitions.Sorted() {
		leaders, placement = append(leaders, p.Leader), append(placement, p.Replicas)
	}
	return leaders, placement, nil
}

// AwaitInSync waits for InSync.
func (w *Wheel) AwaitInSync(ctx context.Context, topics ...string) error {
	return w.await(ctx, func() error { return w.InSync(ctx, topics...) })
}

// AwaitBalanced waits until all replicas of the topic are in sync and the preferred ones lead.
func (w *Wheel) AwaitBalanced(ctx context.Context, topic string) error {
	return w.await(ctx, func() error {
		err := w.InSync(ctx, topic)
		if err == nil {
			err = w.Balanced(ctx, topic)
		}
		if err != nil {
			err = errors.Join(err, w.Elect(ctx, topic))
		}
		return err
	})
}

// Elect asks for the election of the preferred leaders of a topic; that none is needed is no error.
func (w *Wheel) Elect(ctx context.Context, topic string) error {
	leaders, _, err := w.Leaders(ctx, topic)
	if err != nil {
		return err
	}
	set := kadm.TopicsSet{}
	for p := range leaders {
		set.Add(topic, int32(p))
	}
	results, err := w.adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	if err != nil {
		return err
	}
	for _, partitions := range results {
		for _, r := range partitions {
			if r.Err != nil && !errors.Is(r.Err, kerr.ElectionNotNeeded) {
				err = r.Err
			}
		}
	}
	return err
}

// Reassign gives a partition other replicas, the first of which is to lead; it does not wait.
func (w *Wheel) Reassign(ctx context.Context, topic string, placement map[int32][]int32) error {
	var req kadm.AlterPartitionAssignmentsReq
	for p, replicas := range placement {
		req.Assign(topic, p, replicas)
	}
	results, err := w.adm.AlterPartitionAssignments(ctx, req)
	if err != nil {
		return err
	}
	return results.Error()
}

// AwaitPlacement waits until no reassignment is under way and the partitions have exactly these replicas, all in sync.
func (w *Wheel) AwaitPlacement(ctx context.Context, topic string, placement [][]int32) error {
	return w.await(ctx, func() error {
		if err := w.InSync(ctx, topic); err != nil {
			return err
		}
		_, now, err := w.Leaders(ctx, topic)
		if err != nil {
			return err
		}
		for p := range placement {
			if p >= len(now) || !slices.Equal(now[p], placement[p]) {
				return fmt.Errorf("%s-%d: replicas %v, want %v", topic, p, now[p], placement[p])
			}
		}
		return nil
	})
}

// Controller is the leader of the metadata quorum: Kafka's active controller, and Varve's, which is etcd's leader.
func (w *Wheel) Controller(ctx context.Context) (int32, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	t := kmsg.NewDescribeQuorumRequestTopic()
	t.Topic = "__cluster_metadata"
	t.Partitions = append(t.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, w.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return -1, fmt.Errorf("describe quorum: %w", err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return -1, errors.New("describe quorum: not one partition")
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return -1, fmt.Errorf("describe quorum: %w", err)
	}
	if p.LeaderID < 0 {
		return -1, errors.New("describe quorum: no leader")
	}
	return p.LeaderID, nil
}

// AwaitController waits until there is one.
func (w *Wheel) AwaitController(ctx context.Context) (id int32, err error) {
	err = w.await(ctx, func() error { id, err = w.Controller(ctx); return err })
	return id, err
}

// await asks until the answer is nil or ctx ends; then it is the last one.
func (w *Wheel) await(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var last error
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // the last answer that is not only "too late"
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		}
	}
}
