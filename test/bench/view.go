package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// view is the cluster as one broker's metadata shows it.
type view struct {
	id int32
	cl *kgo.Client // knows this broker only
}

func views(s *system) ([]*view, error) {
	var all []*view
	for _, n := range s.Nodes {
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.Kafka))
		if err != nil {
			return nil, err
		}
		all = append(all, &view{n.ID, cl})
	}
	return all, nil
}

const viewTimeout = 10 * time.Second

func (v *view) partitions(ctx context.Context, topics []string) (all []kmsg.MetadataResponseTopicPartition, err error) {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &t
		req.Topics = append(req.Topics, topic)
	}
	answer, err := v.cl.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, t := range answer.(*kmsg.MetadataResponse).Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, err
		}
		all = append(all, t.Partitions...)
	}
	return all, nil
}

// await asks the views one after the other until each shows all partitions as wanted.
func (c *scale) await(ctx context.Context, patience time.Duration, views []*view, want func(kmsg.MetadataResponseTopicPartition) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := poll(ctx, patience, func() error {
		for _, v := range views {
			if n := c.Node(v.id); !n.Running() {
				cancel(fmt.Errorf("broker %d has ended by itself\n%s", v.id, n.LogTail()))
			}
			seen, err := v.partitions(ctx, c.topics)
			if err != nil {
				return err
			}
			seen = slices.DeleteFunc(seen, func(p kmsg.MetadataResponseTopicPartition) bool { return !want(p) })
			if len(seen) != c.result.Partitions {
				return fmt.Errorf("broker %d shows %d of %d partitions as they should be", v.id, len(seen), c.result.Partitions)
			}
		}
		return nil
	})
	if ended := context.Cause(ctx); ended != nil {
		return ended
	}
	return err
}

func inSync(p kmsg.MetadataResponseTopicPartition) bool {
	return p.Leader > 0 && len(p.ISR) == brokers
}

func led(dead int32) func(kmsg.MetadataResponseTopicPartition) bool {
	return func(p kmsg.MetadataResponseTopicPartition) bool { return p.Leader > 0 && p.Leader != dead }
}

func preferred(p kmsg.MetadataResponseTopicPartition) bool {
	return inSync(p) && p.Leader == p.Replicas[0]
}

// quorumLeader is the voter whose word counts: Kafka's active controller, etcd's leader. (What Metadata calls the controller is,
// in KRaft, any broker.)
func (s *system) quorumLeader(ctx context.Context) (int32, error) {
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = append(req.Topics, topic)
	answer, err := req.RequestWith(ctx, s.cl)
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err != nil {
		return 0, err
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return 0, errors.New("the quorum's description is empty")
	}
	p := answer.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return 0, err
	}
	if p.LeaderID < 1 || p.LeaderID > brokers {
		return 0, fmt.Errorf("the quorum's leader is %d", p.LeaderID)
	}
	return p.LeaderID, nil
}
