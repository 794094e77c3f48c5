package group

import (
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
)

// syncGroup is one SyncGroup request: followers wait for the leader's assignment, which is answered to all once it is
// committed.
func (m *machine) syncGroup(fx *runtime.Effects, r *kmsg.SyncGroupRequest, p *runtime.Promise) {
	g := m.groups[r.Group]
	if code := m.validateSync(g, r); code != 0 {
		fx.ReplyNow(p, syncFailure(r.Version, code))
		return
	}
	mem := g.members[r.MemberID]
	switch g.state {
	case statePreparing:
		fx.ReplyNow(p, syncFailure(r.Version, codeRebalance))
	case stateStable:
		m.synced(fx, g, mem.id)
		fx.ReplyNow(p, syncSuccess(r.Version, mem.assignment, g.protocol, nullable(g.protocolType)))
	case stateCompleting:
		m.answerSync(fx, mem, nil, nil, nil, codeRebalance) // who asked for this member before, on another connection
		mem.sync = waiting{p, r.Version}
		m.synced(fx, g, mem.id)
		if mem.id == g.leader && !g.storing {
			m.storeAssignment(fx, g, r)
		}
	}
}

func (m *machine) validateSync(g *classicGroup, r *kmsg.SyncGroupRequest) int16 {
	if g == nil || g.state == stateEmpty {
		return codeUnknownMember
	}
	if code := g.validate(r.MemberID, r.InstanceID); code != 0 {
		return code
	}
	if r.Generation != g.generation {
		return codeIllegalGeneration
	}
	// KIP-559: a client that joined with another protocol must not take this group's assignment.
	if (r.ProtocolType != nil && g.protocolType != "" && *r.ProtocolType != g.protocolType) ||
		(r.Protocol != nil && g.protocol != nil && *r.Protocol != *g.protocol) {
		return codeInconsistent
	}
	return 0
}

// synced takes a member off the list of those that have yet to sync.
func (m *machine) synced(fx *runtime.Effects, g *classicGroup, id string) {
	delete(g.pendingSync, id)
	if len(g.pendingSync) == 0 {
		fx.CancelTimer(syncKey(g.id))
	}
}

// storeAssignment appends the generation with the leader's assignment. Members that the leader left out get an empty one.
func (m *machine) storeAssignment(fx *runtime.Effects, g *classicGroup, r *kmsg.SyncGroupRequest) {
	assignment := make(map[string][]byte, len(r.GroupAssignment))
	for _, a := range r.GroupAssignment {
		assignment[a.MemberID] = slices.Clone(a.MemberAssignment) // it outlives the request's memory
	}
	g.storing = true
	generation := g.generation
	k, v := groupRecord(g, assignment)
	fx.Append(k, v)
	fx.OnSettled(func(fx *runtime.Effects, err error) {
		if !m.live(g) || g.state != stateCompleting || g.generation != generation {
			return // the group has moved on; whoever waited was told to join again
		}
		g.storing = false
		if err != nil {
			m.assignmentLost(fx, g, codeOf(err))
			return
		}
		for _, mem := range g.inOrder() {
			mem.assignment = assignment[mem.id]
			if m.answerSync(fx, mem, mem.assignment, g.protocol, nullable(g.protocolType), 0) {
				m.renew(fx, g, mem, mem.session)
			}
		}
		g.enter(stateStable, fx.Now.UnixMilli())
		m.count(fx, m.inst.rebalances, 1)
	})
}

func (m *machine) assignmentLost(fx *runtime.Effects, g *classicGroup, code int16) {
	m.log.Warn("assignment not stored", slog.String("group", g.id), slog.Int("generation", int(g.generation)),
		slog.Int("code", int(code)))
	for _, mem := range g.inOrder() {
		mem.assignment = nil
		if m.answerSync(fx, mem, nil, nil, nil, code) {
			m.renew(fx, g, mem, mem.session)
		}
	}
	m.prepareRebalance(fx, g, "assignment not stored")
}

// answerSync answers who waits in SyncGroup for the member, if anybody does.
func (m *machine) answerSync(fx *runtime.Effects, mem *member, assignment []byte, protocol, protocolType *string, code int16) bool {
	w := mem.sync
	if !w.is() {
		return false
	}
	mem.sync = waiting{}
	resp := syncFailure(w.version, code)
	if code == 0 {
		resp = syncSuccess(w.version, assignment, protocol, protocolType)
	}
	fx.ReplyNow(w.promise, resp)
	return true
}

func syncFailure(version, code int16) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version, resp.ErrorCode = version, code
	return resp
}

func syncSuccess(version int16, assignment []byte, protocol, protocolType *string) *kmsg.SyncGroupResponse {
	resp := syncFailure(version, 0)
	resp.MemberAssignment, resp.Protocol, resp.ProtocolType = assignment, protocol, protocolType
	return resp
}
