package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// groupOffset is one partition's commit: lag counts the records from the commit to the high watermark.
type groupOffset struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed *int64 `json:"committed"`
	LogStart  int64  `json:"logStartOffset"`
	End       int64  `json:"highWatermark"`
	Lag       int64  `json:"lagRecords"`
	Member    string `json:"member,omitempty"`
	Metadata  string `json:"metadata,omitempty"`
}

func newGroupOffsets(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "offsets GROUP...",
		Short:   "Show committed offsets and lag",
		Example: "  varve group offsets billing --output json",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			lags, err := adm.Lag(ctx, names...)
			if err != nil {
				return err
			}
			rows := []groupOffset{}
			t := table{head: []string{"GROUP", "TOPIC", "PARTITION", "COMMITTED", "LOG START", "HIGH WATERMARK", "LAG", "MEMBER"}}
			for _, g := range lags.Sorted() {
				if err := g.Error(); err != nil {
					return fmt.Errorf("offsets of group %s: %w", g.Group, err)
				}
				for _, l := range g.Lag.Sorted() {
					r, err := lagRow(g.Group, l)
					if err != nil {
						return err
					}
					rows = append(rows, r)
					t.add(r.Group, r.Topic, r.Partition, r.Committed, r.LogStart, r.End, r.Lag, r.Member)
				}
			}
			return a.print(rows, t)
		}),
	}
}

func lagRow(group string, l kadm.GroupMemberLag) (groupOffset, error) {
	if l.Err != nil {
		return groupOffset{}, fmt.Errorf("offset of group %s for %s-%d: %w", group, l.Topic, l.Partition, l.Err)
	}
	r := groupOffset{Group: group, Topic: l.Topic, Partition: l.Partition, LogStart: l.Start.Offset, End: l.End.Offset, Lag: l.Lag, Metadata: l.Commit.Metadata}
	if l.Commit.At >= 0 { // -1: assigned, nothing committed
		r.Committed = &l.Commit.At
	}
	if l.Member != nil {
		r.Member = l.Member.MemberID
	}
	return r, nil
}
