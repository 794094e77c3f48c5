package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type configRow struct {
	Name      string  `json:"name"`
	Value     *string `json:"value"`
	Source    string  `json:"source"`
	Sensitive bool    `json:"sensitive,omitempty"`
}

func newConfigDescribe(a *app) *cobra.Command {
	var changed bool
	c := &cobra.Command{
		Use:   "describe topic|broker NAME",
		Short: "Show settings and where each value comes from",
		Example: `  varve config describe topic orders
  varve config describe broker 1 --changed`,
		Args: cobra.ExactArgs(2),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, args []string) error {
			e, err := parseEntity(args)
			if err != nil {
				return err
			}
			configs, err := e.describe(ctx, adm)
			if err != nil {
				return fmt.Errorf("settings of %s: %w", strings.Join(args, " "), err)
			}
			rows := []configRow{}
			t := table{head: []string{"NAME", "VALUE", "SOURCE"}}
			for _, c := range configs {
				if changed && c.Source == kmsg.ConfigSourceDefaultConfig {
					continue
				}
				r := configRow{c.Key, c.Value, strings.ToLower(c.Source.String()), c.Sensitive}
				rows = append(rows, r)
				t.add(r.Name, c.MaybeValue(), r.Source)
			}
			return a.print(rows, t)
		}),
	}
	c.Flags().BoolVar(&changed, "changed", false, "only what differs from the built-in default")
	return c
}

func (e entity) describe(ctx context.Context, adm *kadm.Client) ([]kadm.Config, error) {
	var (
		res kadm.ResourceConfigs
		err error
	)
	if e.topic != "" {
		res, err = adm.DescribeTopicConfigs(ctx, e.topic)
	} else {
		res, err = adm.DescribeBrokerConfigs(ctx, e.brokers...)
	}
	if err != nil {
		return nil, err
	}
	var all []kadm.Config
	for _, r := range res {
		if r.Err != nil {
			return nil, r.Err
		}
		all = append(all, r.Configs...)
	}
	slices.SortFunc(all, func(x, y kadm.Config) int { return strings.Compare(x.Key, y.Key) })
	return all, nil
}
