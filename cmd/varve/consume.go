package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumeOptions are the flags of `varve consume`.
type consumeOptions struct {
	from          string
	group         string
	max           int64
	untilEnd      bool
	separator     string
	raw           bool
	readCommitted bool
}

func newConsumeCommand(a *app) *cobra.Command {
	var o consumeOptions
	c := &cobra.Command{
		Use:   "consume TOPIC[:PARTITION,...]...",
		Short: "Print records",
		Long: `Print the values of records, one per line; with --output json one JSON object per record, with its offset, time, key and
headers. Without --group it reads the named partitions from --from. With --group it shares them with the group's other
members, goes on after what the group has committed (--from where it has not), and commits what it printed.`,
		Example: `  varve consume orders --until-end
  varve consume orders:0 --from 1000 --max 10 --output json
  varve consume orders --from 2026-11-01T00:00:00Z --key-separator ' = '
  varve consume orders --group billing`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.consume(cmd.Context(), args, o) },
	}
	f := c.Flags()
	f.StringVarP(&o.from, "from", "f", "beginning", "beginning, end, an offset, or a time (RFC 3339, or a duration ago such as -1h)")
	f.StringVarP(&o.group, "group", "g", "", "consume as a member of this group")
	f.Int64VarP(&o.max, "max", "n", 0, "stop after so many records (0: no limit)")
	f.BoolVarP(&o.untilEnd, "until-end", "e", false, "stop where the partitions end now (not with --group)")
	f.StringVarP(&o.separator, "key-separator", "k", "", "print the key and this before the value")
	f.BoolVar(&o.raw, "raw", false, "print values back to back, without a line end")
	f.BoolVar(&o.readCommitted, "read-committed", false, "leave out records of transactions that are open or were aborted")
	return c
}

func (a *app) consume(ctx context.Context, args []string, o consumeOptions) error {
	if o.group != "" && o.untilEnd {
		return errors.New("--until-end does not go with --group: use --max")
	}
	pos, err := parsePosition(o.from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	cl, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	plan, err := a.planConsume(ctx, kadm.NewClient(cl), args, o, pos)
	if err != nil {
		return err
	}
	reader, err := a.dial(ctx, plan.opts...)
	if err != nil {
		return err
	}
	defer reader.CloseAllowingRebalance()
	out := bufio.NewWriterSize(a.out, 64<<10)
	err = plan.read(ctx, reader, recordPrinter{w: out, json: a.output == "json", raw: o.raw, separator: o.separator})
	if o.group != "" && err == nil {
		// What was printed is committed even where the command was interrupted.
		commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), reachTimeout)
		defer cancel()
		err = reader.CommitMarkedOffsets(commit)
	}
	return errors.Join(err, out.Flush())
}

// consumePlan is what to read: how the client is set up, and where to stop.
type consumePlan struct {
	opts []kgo.Opt
	open map[string]map[int32]int64 // end offsets (exclusive) of partitions that are not there yet; nil: no end
	max  int64
}

func (a *app) planConsume(ctx context.Context, adm *kadm.Client, args []string, o consumeOptions, pos position) (consumePlan, error) {
	plan := consumePlan{max: o.max}
	if o.readCommitted {
		plan.opts = append(plan.opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	set, topics := kadm.TopicsSet{}, []string{}
	for _, arg := range args {
		topic, partitions, err := parseTopicPartitions(arg)
		if err != nil {
			return plan, err
		}
		if o.group != "" && partitions != nil {
			return plan, fmt.Errorf("%s: with --group the group decides about partitions", arg)
		}
		if partitions == nil {
			if partitions, err = partitionsOf(ctx, adm, topic); err != nil {
				return plan, err
			}
		}
		set.Add(topic, partitions...)
		topics = append(topics, topic)
	}
	if o.group != "" {
		plan.opts = append(plan.opts, kgo.ConsumerGroup(o.group), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(pos.reset()),
			kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll())
		return plan, nil
	}
	return plan, plan.partitions(ctx, adm, set, o.untilEnd, pos)
}

// partitions sets the plan up for a read without a group.
func (p *consumePlan) partitions(ctx context.Context, adm *kadm.Client, set kadm.TopicsSet, untilEnd bool, pos position) error {
	b, err := loadBounds(ctx, adm, set.Topics())
	if err != nil {
		return err
	}
	at, err := pos.resolve(ctx, adm, b)
	if err != nil {
		return err
	}
	starts := map[string]map[int32]kgo.Offset{}
	if untilEnd {
		p.open = map[string]map[int32]int64{}
	}
	for _, tp := range set.Sorted() {
		starts[tp.Topic] = map[int32]kgo.Offset{}
		for _, partition := range tp.Partitions {
			start, end, err := b.of(tp.Topic, partition)
			if err != nil {
				return err
			}
			from := max(at(tp.Topic, partition), start)
			starts[tp.Topic][partition] = kgo.NewOffset().At(from)
			if untilEnd && from < end {
				if p.open[tp.Topic] == nil {
					p.open[tp.Topic] = map[int32]int64{}
				}
				p.open[tp.Topic][partition] = end
			}
		}
	}
	// KeepControlRecords: a partition may end in a transaction marker, which would otherwise never be seen.
	p.opts = append(p.opts, kgo.ConsumePartitions(starts), kgo.KeepControlRecords())
	return nil
}

// reset is what a group does where it has committed nothing.
func (p position) reset() kgo.Offset {
	switch p.kind {
	case atEnd:
		return kgo.NewOffset().AtEnd()
	case atOffset:
		return kgo.NewOffset().At(p.offset)
	case atTime:
		return kgo.NewOffset().AfterMilli(p.time.UnixMilli())
	}
	return kgo.NewOffset().AtStart()
}

// flushAfter bounds how long printed records stay in the buffer while nothing new comes.
const flushAfter = 200 * time.Millisecond

func (p *consumePlan) read(ctx context.Context, cl *kgo.Client, out recordPrinter) error {
	var n int64
	for p.open == nil || len(p.open) > 0 {
		poll, cancel := context.WithTimeout(ctx, flushAfter)
		fetches := cl.PollFetches(poll)
		cancel()
		if ctx.Err() != nil {
			return nil // interrupted: the usual end of a consumer that waits for more
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return fmt.Errorf("fetch %s-%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if !r.Attrs.IsControl() && !p.past(r) {
				if err := out.print(r); err != nil {
					return err
				}
				n++
			}
			p.passed(r)
			cl.MarkCommitRecords(r)
			if p.max > 0 && n == p.max {
				return nil
			}
		}
		cl.AllowRebalance()
		if err := out.w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// past reports whether the record was appended after the plan was made.
func (p *consumePlan) past(r *kgo.Record) bool {
	if p.open == nil {
		return false
	}
	end, open := p.open[r.Topic][r.Partition]
	return !open || r.Offset >= end
}

// passed notes how far a partition was read.
func (p *consumePlan) passed(r *kgo.Record) {
	if end, open := p.open[r.Topic][r.Partition]; !open || r.Offset < end-1 {
		return
	}
	delete(p.open[r.Topic], r.Partition)
	if len(p.open[r.Topic]) == 0 {
		delete(p.open, r.Topic)
	}
}
