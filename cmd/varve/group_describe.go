package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type groupInfo struct {
	Group       string       `json:"group"`
	State       string       `json:"state"`
	Protocol    string       `json:"protocol"`
	Coordinator int32        `json:"coordinator"`
	Members     []memberInfo `json:"members"`
}

type memberInfo struct {
	MemberID   string             `json:"memberId"`
	InstanceID string             `json:"instanceId,omitempty"`
	ClientID   string             `json:"clientId"`
	Host       string             `json:"host"`
	Assigned   map[string][]int32 `json:"assigned"`
}

func newGroupDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "describe GROUP...",
		Short:   "Show the members of groups and what they are assigned",
		Example: "  varve group describe billing",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withAdmin(func(ctx context.Context, adm *kadm.Client, names []string) error {
			described, err := adm.DescribeGroups(ctx, names...)
			if err != nil {
				return err
			}
			infos := []groupInfo{}
			t := table{head: []string{"GROUP", "STATE", "PROTOCOL", "COORDINATOR", "MEMBER", "CLIENT", "HOST", "ASSIGNED"}}
			for _, g := range described.Sorted() {
				if g.Err != nil {
					return fmt.Errorf("describe group %s: %w", g.Group, g.Err)
				}
				info := groupInfo{g.Group, g.State, g.Protocol, g.Coordinator.NodeID, []memberInfo{}}
				for _, m := range g.Members {
					mi := describeMember(m)
					info.Members = append(info.Members, mi)
					t.add(g.Group, g.State, g.Protocol, info.Coordinator, mi.MemberID, mi.ClientID, mi.Host, mi.Assigned)
				}
				if len(g.Members) == 0 {
					t.add(g.Group, g.State, g.Protocol, info.Coordinator, nil, nil, nil, nil)
				}
				infos = append(infos, info)
			}
			return a.print(infos, t)
		}),
	}
}

func describeMember(m kadm.DescribedGroupMember) memberInfo {
	mi := memberInfo{MemberID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, Assigned: map[string][]int32{}}
	if m.InstanceID != nil {
		mi.InstanceID = *m.InstanceID
	}
	if assigned, ok := m.Assigned.AsConsumer(); ok {
		for _, t := range assigned.Topics {
			mi.Assigned[t.Topic] = t.Partitions
		}
	}
	return mi
}
