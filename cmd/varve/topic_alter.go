package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newTopicAlter(a *app) *cobra.Command {
	var set, unset []string
	c := &cobra.Command{
		Use:   "alter NAME...",
		Short: "Change settings of topics",
		Example: `  varve topic alter orders --set retention.ms=86400000
  varve topic alter orders --unset retention.ms`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			ops, err := alterations(set, unset)
			if err != nil {
				return err
			}
			res, err := adm.AlterTopicConfigs(ctx, ops, names...)
			if err != nil {
				return err
			}
			return a.reportAltered(res)
		}),
	}
	settingFlags(c, &set, &unset)
	return c
}

func settingFlags(c *cobra.Command, set, unset *[]string) {
	c.Flags().StringArrayVar(set, "set", nil, "name=value; may be repeated")
	c.Flags().StringArrayVar(unset, "unset", nil, "name: back to the default; may be repeated")
}

// alterations turns the flags into Kafka's incremental operations (KIP-339).
func alterations(set, unset []string) ([]kadm.AlterConfig, error) {
	names, values, err := parsePairs("set", set)
	if err != nil {
		return nil, err
	}
	var ops []kadm.AlterConfig
	for i := range names {
		ops = append(ops, kadm.AlterConfig{Op: kadm.SetConfig, Name: names[i], Value: &values[i]})
	}
	for _, name := range unset {
		ops = append(ops, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name})
	}
	if len(ops) == 0 {
		return nil, errors.New("nothing to change: give --set name=value or --unset name")
	}
	return ops, nil
}

func (a *app) reportAltered(res kadm.AlterConfigsResponses) error {
	out := outcomes{did: "altered"}
	for _, r := range res {
		if r.Name == "" { // the cluster-wide default has no name
			r.Name = "all brokers"
		}
		out.add(r.Name, r.Err, r.ErrMessage)
	}
	return a.report(out)
}
