package group

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
)

// describeNotFound is the version from which DescribeGroups names an unknown group as such (KIP-1043).
const describeNotFound = 6

// classicType is the group type that ListGroups 5 shows (KIP-848).
const classicType = "classic"

// describeGroup is one group of a DescribeGroups request. Subscriptions are shown in stable groups only, as the protocol is
// not known before.
func (m *machine) describeGroup(fx *runtime.Effects, version int16, id string, p *runtime.Promise) {
	out := kmsg.NewDescribeGroupsResponseGroup()
	out.Group = id
	g := m.groups[id]
	if g == nil {
		out.State = stateDead.String()
		if version >= describeNotFound {
			msg := fmt.Sprintf("Group %s not found.", id)
			out.ErrorCode, out.ErrorMessage = codeGroupNotFound, &msg
		}
		fx.ReplyNow(p, &out)
		return
	}
	out.State, out.ProtocolType = g.state.String(), g.protocolType
	stable := g.state == stateStable && g.protocol != nil
	if stable {
		out.Protocol = *g.protocol
	}
	for _, mem := range g.inOrder() {
		rm := kmsg.NewDescribeGroupsResponseGroupMember()
		rm.MemberID, rm.InstanceID = mem.id, mem.instanceID
		rm.ClientID, rm.ClientHost, rm.MemberAssignment = mem.client.ID, mem.client.Host, mem.assignment
		if stable {
			rm.ProtocolMetadata = mem.metadata(g.protocol)
		}
		out.Members = append(out.Members, rm)
	}
	fx.ReplyNow(p, &out)
}

// listGroups is this shard's part of a ListGroups request; empty filters let everything pass.
func (m *machine) listGroups(fx *runtime.Effects, r *kmsg.ListGroupsRequest, p *runtime.Promise) {
	out := []kmsg.ListGroupsResponseGroup{}
	if passes(r.TypesFilter, classicType) {
		for _, id := range sortedKeys(m.groups) {
			g := m.groups[id]
			if !passes(r.StatesFilter, g.state.String()) {
				continue
			}
			rg := kmsg.NewListGroupsResponseGroup()
			rg.Group, rg.ProtocolType, rg.GroupState, rg.GroupType = id, g.protocolType, g.state.String(), classicType
			out = append(out, rg)
		}
	}
	fx.ReplyNow(p, out)
}

func passes(filter []string, s string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, s) })
}
