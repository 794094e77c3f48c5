package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type clusterInfo struct {
	ClusterID  string      `json:"clusterId"`
	Controller int32       `json:"controller"`
	Topics     int         `json:"topics"`
	Partitions int         `json:"partitions"`
	Leaderless int         `json:"leaderless"`
	UnderISR   int         `json:"underReplicated"`
	Brokers    []brokerRow `json:"brokers"`
}

func newClusterDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "describe",
		Short:   "Show the cluster's id, controller, brokers and the health of its partitions",
		Example: "  varve cluster describe",
		Args:    cobra.NoArgs,
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, _ []string) error {
			meta, err := adm.Metadata(ctx)
			if err != nil {
				return err
			}
			c := clusterInfo{ClusterID: meta.Cluster, Controller: meta.Controller, Topics: len(meta.Topics), Brokers: brokerRows(meta)}
			meta.Topics.EachPartition(func(p kadm.PartitionDetail) {
				c.Partitions++
				if p.Leader < 0 {
					c.Leaderless++
				}
				if len(p.ISR) < len(p.Replicas) {
					c.UnderISR++
				}
			})
			t := table{}
			t.add("cluster", c.ClusterID)
			t.add("controller", c.Controller)
			t.add("brokers", len(c.Brokers))
			t.add("topics", c.Topics)
			t.add("partitions", c.Partitions)
			t.add("without a leader", c.Leaderless)
			t.add("under-replicated", c.UnderISR)
			return a.print(c, t)
		}),
	}
}
