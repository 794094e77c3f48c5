package main

import (
	"context"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type brokerRow struct {
	NodeID     int32  `json:"nodeId"`
	Address    string `json:"address"`
	Rack       string `json:"rack,omitempty"`
	Controller bool   `json:"controller"`
	Leads      int    `json:"leads"`
	Replicas   int    `json:"replicas"`
}

func newBrokerList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List brokers, and how many partitions each leads and holds",
		Example: "  varve broker list",
		Args:    cobra.NoArgs,
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, _ []string) error {
			meta, err := adm.Metadata(ctx)
			if err != nil {
				return err
			}
			rows := brokerRows(meta)
			t := table{head: []string{"ID", "ADDRESS", "RACK", "CONTROLLER", "LEADS", "REPLICAS"}}
			for _, r := range rows {
				t.add(r.NodeID, r.Address, r.Rack, r.Controller, r.Leads, r.Replicas)
			}
			return a.print(rows, t)
		}),
	}
}

// held counts the partitions that each broker leads, and those that it has a replica of.
func held(meta kadm.Metadata) (leads, replicas map[int32]int) {
	leads, replicas = map[int32]int{}, map[int32]int{}
	meta.Topics.EachPartition(func(p kadm.PartitionDetail) {
		leads[p.Leader]++
		for _, r := range p.Replicas {
			replicas[r]++
		}
	})
	return leads, replicas
}

func brokerRows(meta kadm.Metadata) []brokerRow {
	leads, replicas := held(meta)
	rows := []brokerRow{}
	for _, b := range meta.Brokers {
		r := brokerRow{
			NodeID: b.NodeID, Address: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))),
			Controller: b.NodeID == meta.Controller, Leads: leads[b.NodeID], Replicas: replicas[b.NodeID],
		}
		if b.Rack != nil {
			r.Rack = *b.Rack
		}
		rows = append(rows, r)
	}
	return rows
}
