package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type resetRow struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      *int64 `json:"from"`
	To        int64  `json:"to"`
}

// resetOptions are the flags of `varve group reset`.
type resetOptions struct {
	topics  []string
	to      string
	shift   int64
	hasTo   bool
	hasBy   bool
	preview bool
}

func newGroupReset(a *app) *cobra.Command {
	var o resetOptions
	c := &cobra.Command{
		Use:   "reset GROUP",
		Short: "Move the committed offsets of a group that has no members",
		Example: `  varve group reset billing --topic orders --to beginning --dry-run
  varve group reset billing --topic orders:0,1 --to 2026-11-01T00:00:00Z
  varve group reset billing --topic orders --shift-by -100`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hasTo, o.hasBy = cmd.Flags().Changed("to"), cmd.Flags().Changed("shift-by")
			if o.hasTo == o.hasBy {
				return errors.New("say where to: either --to or --shift-by")
			}
			return a.withAdmin(func(ctx context.Context, adm *kadm.Client, args []string) error {
				return a.resetGroup(ctx, adm, args[0], o)
			})(cmd, args)
		},
	}
	c.Flags().StringArrayVarP(&o.topics, "topic", "t", nil, "topic, or topic:partition,partition...; may be repeated (default: all that the group has committed)")
	c.Flags().StringVar(&o.to, "to", "", "beginning, end, an offset, or a time (RFC 3339, or a duration ago such as -1h)")
	c.Flags().Int64Var(&o.shift, "shift-by", 0, "move by so many records")
	c.Flags().BoolVar(&o.preview, "dry-run", false, "only show what would be committed")
	return c
}

func (a *app) resetGroup(ctx context.Context, adm *kadm.Client, group string, o resetOptions) error {
	committed, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return fmt.Errorf("offsets of group %s: %w", group, err)
	}
	set, err := resetSet(ctx, adm, o.topics, committed)
	if err != nil {
		return err
	}
	bounds, err := loadBounds(ctx, adm, set.Topics())
	if err != nil {
		return err
	}
	target, rows, err := resetTargets(ctx, adm, o, set, committed, bounds)
	if err != nil {
		return err
	}
	if !o.preview {
		if err := adm.CommitAllOffsets(ctx, group, target); err != nil {
			return fmt.Errorf("commit offsets of group %s (stop its members first): %w", group, err)
		}
	}
	t := table{head: []string{"TOPIC", "PARTITION", "FROM", "TO"}}
	for _, r := range rows {
		t.add(r.Topic, r.Partition, r.From, r.To)
	}
	return a.print(rows, t)
}

// resetSet is the partitions to reset: those named, or all committed ones.
func resetSet(ctx context.Context, adm *kadm.Client, names []string, committed kadm.OffsetResponses) (kadm.TopicsSet, error) {
	if len(names) == 0 {
		if len(committed) == 0 {
			return nil, errors.New("the group has committed nothing yet: name the topics with --topic")
		}
		return committed.Partitions(), nil
	}
	set := kadm.TopicsSet{}
	for _, n := range names {
		topic, partitions, err := parseTopicPartitions(n)
		if err != nil {
			return nil, err
		}
		if partitions == nil {
			if partitions, err = partitionsOf(ctx, adm, topic); err != nil {
				return nil, err
			}
		}
		set.Add(topic, partitions...)
	}
	return set, nil
}

func resetTargets(ctx context.Context, adm *kadm.Client, o resetOptions, set kadm.TopicsSet, committed kadm.OffsetResponses, b bounds) (kadm.Offsets, []resetRow, error) {
	var pos position
	if o.hasTo {
		var err error
		if pos, err = parsePosition(o.to); err != nil {
			return nil, nil, err
		}
	}
	at, err := pos.resolve(ctx, adm, b)
	if err != nil {
		return nil, nil, err
	}
	target, rows := kadm.Offsets{}, []resetRow{}
	for _, tp := range set.Sorted() {
		for _, p := range tp.Partitions {
			r := resetRow{Topic: tp.Topic, Partition: p}
			if c, ok := committed.Lookup(tp.Topic, p); ok && c.At >= 0 {
				r.From = &c.At
			}
			start, end, err := b.of(tp.Topic, p)
			if err != nil {
				return nil, nil, err
			}
			switch {
			case o.hasTo:
				r.To = at(tp.Topic, p)
			case r.From != nil:
				r.To = *r.From + o.shift
			default:
				return nil, nil, fmt.Errorf("--shift-by: nothing is committed for %s-%d; use --to", tp.Topic, p)
			}
			r.To = min(max(r.To, start), end)
			target.AddOffset(tp.Topic, p, r.To, -1)
			rows = append(rows, r)
		}
	}
	return target, rows, nil
}
