package group

import (
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
)

// heartbeat is one Heartbeat request.
func (m *machine) heartbeat(fx *runtime.Effects, r *kmsg.HeartbeatRequest, p *runtime.Promise) {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version = r.Version
	g := m.groups[r.Group]
	switch {
	case g == nil || g.state == stateEmpty:
		resp.ErrorCode = codeUnknownMember
	case g.validate(r.MemberID, r.InstanceID) != 0:
		resp.ErrorCode = g.validate(r.MemberID, r.InstanceID)
	case r.Generation != g.generation:
		resp.ErrorCode = codeIllegalGeneration
	default:
		mem := g.members[r.MemberID]
		m.renew(fx, g, mem, mem.session)
		if g.state == statePreparing {
			resp.ErrorCode = codeRebalance
		}
	}
	fx.ReplyNow(p, resp)
}

// expireSession is a session that ended. Members that wait for an answer are alive, except new ones, whose longer timer this
// is then.
func (m *machine) expireSession(fx *runtime.Effects, g *classicGroup, id string) {
	if !m.live(g) {
		return
	}
	if _, ok := g.pendingJoin[id]; ok {
		m.log.Info("pending member expired", slog.String("group", g.id), slog.String("member", id))
		m.removePending(fx, g, id)
		return
	}
	mem := g.members[id]
	if mem == nil || (!mem.isNew && (mem.join.is() || mem.sync.is())) {
		return
	}
	m.log.Info("member expired", slog.String("group", g.id), slog.String("member", id))
	m.removeMember(fx, g, mem)
	switch {
	case g.state == stateStable || g.state == stateCompleting:
		m.prepareRebalance(fx, g, "session of member "+id+" expired")
	case g.state == statePreparing && g.allJoined():
		m.completeJoin(fx, g)
	}
}

// removePending forgets an id that nobody joined with; the group may have waited for just that.
func (m *machine) removePending(fx *runtime.Effects, g *classicGroup, id string) {
	g.remove(id)
	if g.state == statePreparing && g.allJoined() {
		m.completeJoin(fx, g)
	}
}

// removeMember takes a member out and tells whoever waits for it.
func (m *machine) removeMember(fx *runtime.Effects, g *classicGroup, mem *member) {
	fx.CancelTimer(sessionKey(g.id, mem.id))
	if w := g.park(mem, waiting{}); w.is() {
		fx.ReplyNow(w.promise, joinFailure(w.version, "", codeUnknownMember))
	}
	m.answerSync(fx, mem, nil, nil, nil, codeUnknownMember)
	g.remove(mem.id)
}

// leaveGroup is one LeaveGroup request. Versions 0 to 2 name one member at the top level, later ones several (KIP-345),
// static ones also by instance id alone, which is how an operator removes them.
func (m *machine) leaveGroup(fx *runtime.Effects, r *kmsg.LeaveGroupRequest, p *runtime.Promise) {
	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.Version = r.Version
	g := m.groups[r.Group]
	left := make([]string, 0, 1)
	for _, l := range leavers(r) {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID = l.MemberID, l.InstanceID
		if rm.ErrorCode = m.leaveOne(fx, g, l); rm.ErrorCode == 0 {
			left = append(left, l.MemberID)
		}
		resp.Members = append(resp.Members, rm)
	}
	if r.Version < 3 {
		resp.ErrorCode, resp.Members = resp.Members[0].ErrorCode, nil
	}
	if len(left) > 0 {
		m.rebalanceWithout(fx, g, left)
	}
	fx.Reply(p, resp)
}

func (m *machine) rebalanceWithout(fx *runtime.Effects, g *classicGroup, left []string) {
	switch g.state {
	case stateStable, stateCompleting:
		m.prepareRebalance(fx, g, "members left: "+strings.Join(left, ", "))
	case statePreparing:
		m.maybeCompleteJoin(fx, g)
	}
}

func (m *machine) leaveOne(fx *runtime.Effects, g *classicGroup, l kmsg.LeaveGroupRequestMember) int16 {
	if g == nil {
		return codeUnknownMember
	}
	id := l.MemberID
	if id == "" {
		if l.InstanceID == nil || g.statics[*l.InstanceID] == "" {
			return codeUnknownMember
		}
		id = g.statics[*l.InstanceID]
	} else if _, ok := g.pendingJoin[id]; ok {
		g.remove(id)
		fx.CancelTimer(sessionKey(g.id, id))
		return 0
	} else if code := g.validate(id, l.InstanceID); code != 0 {
		return code
	}
	m.log.Info("member leaves", slog.String("group", g.id), slog.String("member", id), slog.String("reason", reason(l.Reason)))
	m.removeMember(fx, g, g.members[id])
	return 0
}

func leavers(r *kmsg.LeaveGroupRequest) []kmsg.LeaveGroupRequestMember {
	if r.Version >= 3 {
		return r.Members
	}
	l := kmsg.NewLeaveGroupRequestMember()
	l.MemberID = r.MemberID
	return []kmsg.LeaveGroupRequestMember{l}
}
