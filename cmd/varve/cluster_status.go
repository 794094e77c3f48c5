package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// clusterStatus is the answer of `varve cluster status`. What only the HTTP side tells is null where that does not answer.
type clusterStatus struct {
	ClusterID       string         `json:"clusterId"`
	Controller      int32          `json:"controller"`
	Topics          int            `json:"topics"`
	Partitions      int            `json:"partitions"`
	Offline         int            `json:"offline"`         // partitions without a leader
	UnderReplicated int            `json:"underReplicated"` // with a replica that is not in sync
	Reassigning     int            `json:"reassigning"`     // on their way to other replicas
	Brokers         []brokerStatus `json:"brokers"`
	Voters          []voterRow     `json:"voters"`
}

type brokerStatus struct {
	brokerRow
	Fenced   bool  `json:"fenced"`
	NewDisk  *bool `json:"newDisk"`
	Draining *bool `json:"draining"`
	Full     *bool `json:"full"`
	Voter    *bool `json:"voter"`
}

func newClusterStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show brokers, dead ones too, voters, and the partitions that are not as they should be",
		Long: `Show the registered brokers with those that are dead (fenced), the etcd members that hold the cluster's metadata, and how many
partitions have no leader, miss replicas, or are on their way to other brokers.

Everything comes over Kafka's protocol but voters and what is being drained, which the broker's HTTP address tells (--http); they
are null where it does not answer.`,
		Example: "  varve cluster status\n  varve cluster status --output json | jq '.brokers[] | select(.fenced)'",
		Args:    cobra.NoArgs,
		RunE: a.withClient(func(ctx context.Context, cl *kgo.Client, _ []string) error {
			s, err := describeStatus(ctx, cl)
			if err != nil {
				return err
			}
			if err := a.addVoters(ctx, &s); err != nil {
				a.warn("voters and draining brokers are unknown: %v", err)
			}
			if a.output == "json" {
				return a.printJSON(s)
			}
			return a.printStatus(s)
		}),
	}
}

// describeStatus asks over Kafka's protocol alone.
func describeStatus(ctx context.Context, cl *kgo.Client) (clusterStatus, error) {
	meta, err := kadm.NewClient(cl).Metadata(ctx)
	if err != nil {
		return clusterStatus{}, err
	}
	s := clusterStatus{ClusterID: meta.Cluster, Controller: meta.Controller, Topics: len(meta.Topics)}
	meta.Topics.EachPartition(func(p kadm.PartitionDetail) {
		s.Partitions++
		if p.Leader < 0 {
			s.Offline++
		}
		if len(p.ISR) < len(p.Replicas) || p.Leader < 0 {
			s.UnderReplicated++
		}
	})
	describe := kmsg.NewPtrDescribeClusterRequest()
	describe.EndpointType, describe.IncludeFencedBrokers = 1, true
	cluster, err := describe.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(cluster.ErrorCode)
	}
	if err != nil {
		return s, fmt.Errorf("describe the cluster: %w", err)
	}
	leads, replicas := held(meta)
	for _, b := range cluster.Brokers {
		row := brokerStatus{Fenced: b.IsFenced, brokerRow: brokerRow{
			NodeID: b.NodeID, Address: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), Controller: b.NodeID == meta.Controller,
			Leads: leads[b.NodeID], Replicas: replicas[b.NodeID],
		}}
		if b.Rack != nil {
			row.Rack = *b.Rack
		}
		s.Brokers = append(s.Brokers, row)
	}
	list, err := kmsg.NewPtrListPartitionReassignmentsRequest().RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(list.ErrorCode)
	}
	if err != nil {
		return s, fmt.Errorf("list reassignments: %w", err)
	}
	for _, t := range list.Topics {
		s.Reassigning += len(t.Partitions)
	}
	return s, nil
}

// addVoters adds what the HTTP side tells.
func (a *app) addVoters(ctx context.Context, s *clusterStatus) error {
	var answer clusterAnswer
	if err := a.call(ctx, "GET", "/v1/cluster", nil, &answer); err != nil {
		return err
	}
	if answer.ClusterID != s.ClusterID {
		return fmt.Errorf("%s belongs to another cluster than --bootstrap: its id is %s", a.httpAddr, answer.ClusterID)
	}
	votes := map[int32]bool{}
	if answer.Problem == "" {
		s.Voters = answer.Voters
		for _, v := range answer.Voters {
			votes[v.NodeID] = !v.Learner
		}
	} else {
		a.warn("the voters are unknown: %s", answer.Problem)
	}
	for i := range s.Brokers {
		b := &s.Brokers[i]
		for _, told := range answer.Brokers {
			if told.NodeID == b.NodeID {
				b.NewDisk, b.Draining, b.Full = &told.NewDisk, &told.Draining, &told.Full
			}
		}
		if answer.Problem == "" {
			votes := votes[b.NodeID]
			b.Voter = &votes
		}
	}
	return nil
}

func (a *app) printStatus(s clusterStatus) error {
	sum := table{}
	sum.add("cluster", s.ClusterID)
	sum.add("controller", s.Controller)
	sum.add("topics", s.Topics)
	sum.add("partitions", s.Partitions)
	sum.add("offline", s.Offline)
	sum.add("under-replicated", s.UnderReplicated)
	sum.add("reassigning", s.Reassigning)
	brokers := table{head: []string{"BROKER", "ADDRESS", "RACK", "STATE", "CONTROLLER", "VOTER", "LEADS", "REPLICAS"}}
	for _, b := range s.Brokers {
		brokers.add(b.NodeID, b.Address, b.Rack, b.state(), b.Controller, b.Voter, b.Leads, b.Replicas)
	}
	voters := table{head: []string{"VOTER", "ADDRESS", "ROLE", "STATE", "DB BYTES", "RAFT TERM", "RAFT INDEX"}}
	for _, v := range s.Voters {
		voters.add(v.NodeID, v.Address, v.role(), v.state(), v.DBBytes, v.RaftTerm, v.RaftIndex)
	}
	tables := []table{sum, brokers}
	if s.Voters != nil {
		tables = append(tables, voters)
	}
	for i, t := range tables {
		if i > 0 {
			a.say("")
		}
		if err := a.print(nil, t); err != nil {
			return err
		}
	}
	return nil
}

func (b *brokerStatus) state() string {
	state := "serves"
	switch {
	case b.NewDisk != nil && *b.NewDisk:
		state = "fenced, new disk"
	case b.Fenced:
		state = "fenced"
	}
	if b.Draining != nil && *b.Draining {
		state += ", draining"
	}
	if b.Full != nil && *b.Full {
		state += ", disk full"
	}
	return state
}

func (v *voterRow) role() string {
	switch {
	case v.Leader:
		return "leader"
	case v.Learner:
		return "learner"
	}
	return "follower"
}

func (v *voterRow) state() string {
	if v.Healthy {
		return "healthy"
	}
	return v.Problem
}
