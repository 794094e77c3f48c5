package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type groupRow struct {
	Group        string `json:"group"`
	State        string `json:"state"`
	ProtocolType string `json:"protocolType"`
	Coordinator  int32  `json:"coordinator"`
}

func newGroupList(a *app) *cobra.Command {
	var states []string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List groups",
		Example: "  varve group list --state Stable",
		Args:    cobra.NoArgs,
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, _ []string) error {
			groups, err := adm.ListGroups(ctx, states...)
			if err != nil {
				return err
			}
			rows := []groupRow{}
			t := table{head: []string{"GROUP", "STATE", "TYPE", "COORDINATOR"}}
			for _, g := range groups.Sorted() {
				rows = append(rows, groupRow{g.Group, g.State, g.ProtocolType, g.Coordinator})
				t.add(g.Group, g.State, g.ProtocolType, g.Coordinator)
			}
			return a.print(rows, t)
		}),
	}
	c.Flags().StringSliceVar(&states, "state", nil, "only groups in these states: Stable, Empty, ...")
	return c
}
