package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newTopicDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME...",
		Short:   "Delete topics with everything in them, hot and tiered",
		Example: "  varve topic delete orders clicks",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			res, err := adm.DeleteTopics(ctx, names...)
			if err != nil {
				return err
			}
			out := outcomes{did: "deleted"}
			for _, r := range res.Sorted() {
				out.add(r.Topic, r.Err, r.ErrMessage)
			}
			return a.report(out)
		}),
	}
}
