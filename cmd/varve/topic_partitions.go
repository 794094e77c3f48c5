package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newTopicPartitions(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "partitions NAME COUNT",
		Short:   "Raise a topic's number of partitions to COUNT",
		Long:    "Raise a topic's number of partitions to COUNT. Keys map to other partitions from then on; partitions cannot be taken away.",
		Example: "  varve topic partitions orders 32",
		Args:    cobra.ExactArgs(2),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, args []string) error {
			count, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil || count < 1 {
				return fmt.Errorf("COUNT %q: give the new total, a positive number", args[1])
			}
			res, err := adm.UpdatePartitions(ctx, int(count), args[0])
			if err != nil {
				return err
			}
			out := outcomes{did: "extended"}
			for _, r := range res.Sorted() {
				out.add(r.Topic, r.Err, r.ErrMessage)
			}
			return a.report(out)
		}),
	}
}
