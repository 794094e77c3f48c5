package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Consumer reads topics as a member of a group: partitions are shared with the other members, and offsets are committed
// after their records were handled, so that every record is handled at least once. Not safe for concurrent use.
type Consumer struct{ cl *kgo.Client }

// ConsumerOptions configure NewConsumer.
type ConsumerOptions struct {
	Options
	Group  string   // required
	Topics []string // required
	// FromEnd starts a group that has committed nothing at the end; by default it starts with the first record there is.
	FromEnd bool
	// ReadCommitted leaves out records of transactions that are open or were aborted.
	ReadCommitted bool
}

// NewConsumer does not connect yet: the first Poll joins the group.
func NewConsumer(o ConsumerOptions) (*Consumer, error) {
	if o.Group == "" || len(o.Topics) == 0 {
		return nil, errors.New("a consumer needs a group and at least one topic")
	}
	start := kgo.NewOffset().AtStart()
	if o.FromEnd {
		start = kgo.NewOffset().AtEnd()
	}
	isolation := kgo.ReadUncommitted()
	if o.ReadCommitted {
		isolation = kgo.ReadCommitted()
	}
	cl, err := o.build(
		kgo.ConsumerGroup(o.Group), kgo.ConsumeTopics(o.Topics...), kgo.ConsumeResetOffset(start), kgo.FetchIsolationLevel(isolation),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
	)
	if err != nil {
		return nil, err
	}
	return &Consumer{cl}, nil
}

// Poll waits for records, calls handle for each, in order within a partition, and commits. Where handle fails, Poll commits
// what was handled before, and the rest comes again after the partition moves or the consumer restarts: handle retries what is
// worth retrying, and an error of it normally ends the program. No partition is taken away while Poll runs, so handle must end
// within the group's rebalance timeout (60 s).
func (c *Consumer) Poll(ctx context.Context, handle func(context.Context, Record) error) error {
	fetches := c.cl.PollFetches(ctx)
	defer c.cl.AllowRebalance()
	if fetches.IsClientClosed() {
		return ErrClosed
	}
	if err := fetches.Err0(); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	var handled []*kgo.Record
	var failed error
	for it := fetches.RecordIter(); !it.Done() && failed == nil; {
		k := it.Next()
		if err := handle(ctx, fromKgo(k)); err != nil {
			failed = fmt.Errorf("handle %s-%d offset %d: %w", k.Topic, k.Partition, k.Offset, err)
			break
		}
		handled = append(handled, k)
	}
	if len(handled) > 0 {
		if err := c.cl.CommitRecords(context.WithoutCancel(ctx), handled...); err != nil {
			failed = errors.Join(failed, fmt.Errorf("commit offsets: %w", err))
		}
	}
	for _, e := range fetches.Errors() { // after the records: the other partitions' are good
		failed = errors.Join(failed, fmt.Errorf("fetch %s-%d: %w", e.Topic, e.Partition, e.Err))
	}
	return failed
}

// Client is the franz-go client underneath.
func (c *Consumer) Client() *kgo.Client { return c.cl }

// Close leaves the group, so that the other members take over at once.
func (c *Consumer) Close() { c.cl.CloseAllowingRebalance() }
