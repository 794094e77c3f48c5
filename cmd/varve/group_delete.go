package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newGroupDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete GROUP...",
		Short:   "Delete groups without members, with their offsets",
		Example: "  varve group delete billing",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			res, err := adm.DeleteGroups(ctx, names...)
			if err != nil {
				return err
			}
			out := outcomes{did: "deleted"}
			for _, r := range res.Sorted() {
				out.add(r.Group, r.Err, "")
			}
			return a.report(out)
		}),
	}
}
