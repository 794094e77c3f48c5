package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func newTopicCreate(a *app) *cobra.Command {
	var (
		partitions  int32
		replication int16
		configs     []string
		ifNotExists bool
	)
	c := &cobra.Command{
		Use:   "create NAME...",
		Short: "Create topics",
		Example: `  varve topic create orders --partitions 16
  varve topic create clicks --config retention.ms=86400000 --config segment.bytes=16777216`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			settings, err := configMap(configs)
			if err != nil {
				return err
			}
			res, err := adm.CreateTopics(ctx, partitions, replication, settings, names...)
			if err != nil {
				return err
			}
			out := outcomes{did: "created"}
			for _, r := range res.Sorted() {
				if ifNotExists && errors.Is(r.Err, kerr.TopicAlreadyExists) {
					r.Err = nil
				}
				out.add(r.Topic, r.Err, r.ErrMessage)
			}
			return a.report(out)
		}),
	}
	c.Flags().Int32VarP(&partitions, "partitions", "p", -1, "number of partitions (-1: the broker's num.partitions)")
	c.Flags().Int16VarP(&replication, "replication-factor", "r", -1, "copies of each partition (-1: the broker's default.replication.factor)")
	c.Flags().StringArrayVarP(&configs, "config", "c", nil, "topic setting, name=value; may be repeated")
	c.Flags().BoolVar(&ifNotExists, "if-not-exists", false, "an existing topic is no error")
	return c
}

func configMap(pairs []string) (map[string]*string, error) {
	names, values, err := parsePairs("config", pairs)
	if err != nil {
		return nil, err
	}
	m := make(map[string]*string, len(names))
	for i, n := range names {
		m[n] = &values[i]
	}
	return m, nil
}
