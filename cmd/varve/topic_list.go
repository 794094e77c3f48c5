package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type topicRow struct {
	Name              string `json:"name"`
	TopicID           string `json:"topicId"`
	Partitions        int    `json:"partitions"`
	ReplicationFactor int    `json:"replicationFactor"`
	Internal          bool   `json:"internal"`
}

func newTopicList(a *app) *cobra.Command {
	var internal bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List topics",
		Example: "  varve topic list --internal",
		Args:    cobra.NoArgs,
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, _ []string) error {
			list := adm.ListTopics
			if internal {
				list = adm.ListTopicsWithInternal
			}
			topics, err := list(ctx)
			if err != nil {
				return err
			}
			rows := []topicRow{}
			t := table{head: []string{"TOPIC", "PARTITIONS", "REPLICATION", "ID"}}
			for _, d := range topics.Sorted() {
				r := topicRow{d.Topic, uuidString(d.ID), len(d.Partitions), d.Partitions.NumReplicas(), d.IsInternal}
				rows = append(rows, r)
				t.add(r.Name, r.Partitions, r.ReplicationFactor, r.TopicID)
			}
			return a.print(rows, t)
		}),
	}
	c.Flags().BoolVar(&internal, "internal", false, "show __consumer_offsets and its like too")
	return c
}
