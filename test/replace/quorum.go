package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// quorum waits until the metadata has three voters again: without, the next disk would take the majority with it.
func (r *run) quorum(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.bootstrap()...))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		n, err := voting(ctx, cl)
		if err == nil && n == voters {
			return nil
		}
		if !wait(ctx, poll) {
			return errors.Join(fmt.Errorf("%d of %d voters: %w", n, voters, ctx.Err()), err)
		}
	}
}

// voting counts the voters that are healthy: Varve tells a log end of those alone.
func voting(ctx context.Context, cl *kgo.Client) (n int, err error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	t := kmsg.NewDescribeQuorumRequestTopic()
	t.Topic = "__cluster_metadata"
	t.Partitions = append(t.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("describe quorum: %w", err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			for _, v := range p.CurrentVoters {
				if v.LogEndOffset >= 0 {
					n++
				}
			}
		}
	}
	return n, nil
}
