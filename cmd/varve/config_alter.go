package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newConfigAlter(a *app) *cobra.Command {
	var set, unset []string
	c := &cobra.Command{
		Use:   "alter topic|broker NAME",
		Short: "Change settings while everything runs",
		Example: `  varve config alter topic orders --set retention.ms=86400000
  varve config alter broker default --set log.retention.ms=604800000
  varve config alter broker 1 --unset log.retention.ms`,
		Args: cobra.ExactArgs(2),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, args []string) error {
			e, err := parseEntity(args)
			if err != nil {
				return err
			}
			ops, err := alterations(set, unset)
			if err != nil {
				return err
			}
			var res kadm.AlterConfigsResponses
			if e.topic != "" {
				res, err = adm.AlterTopicConfigs(ctx, ops, e.topic)
			} else {
				res, err = adm.AlterBrokerConfigs(ctx, ops, e.brokers...)
			}
			if err != nil {
				return err
			}
			return a.reportAltered(res)
		}),
	}
	settingFlags(c, &set, &unset)
	return c
}
