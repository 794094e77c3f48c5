package group

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/invariants"
)

// JoinGroup versions from which a behaviour exists.
const (
	joinKnownMemberID  = 4 // KIP-394: a dynamic member joins with an id that it was given
	joinSkipAssignment = 9 // KIP-814: a static leader that comes back keeps the assignment
)

// joinGroup is one JoinGroup request; its answer may be due only when the rebalance ends.
func (m *machine) joinGroup(fx *runtime.Effects, cl Client, r *kmsg.JoinGroupRequest, p *runtime.Promise) {
	refuse := func(memberID string, code int16) { fx.ReplyNow(p, joinFailure(r.Version, memberID, code)) }
	g := m.groups[r.Group]
	switch {
	case g == nil && r.MemberID != "":
		refuse(r.MemberID, codeUnknownMember)
		return
	case g == nil && (r.ProtocolType == "" || len(r.Protocols) == 0):
		// Kafka makes the group all the same; refused requests should leave nothing behind.
		refuse("", codeInconsistent)
		return
	case g == nil:
		g = m.create(fx, r.Group)
		k, v := groupRecord(g, nil)
		fx.Append(k, v)
	}
	switch {
	case !m.accepts(g, r.MemberID):
		g.remove(r.MemberID)
		refuse("", codeGroupMaxSize)
	case !g.supports(r.ProtocolType, r.Protocols):
		refuse(r.MemberID, codeInconsistent)
	case r.MemberID == "":
		m.joinNew(fx, g, cl, r, p)
	default:
		m.joinAgain(fx, g, cl, r, p)
	}
}

// accepts applies group.max.size: a group that is being rebalanced may be over it by members that do not come back.
func (m *machine) accepts(g *classicGroup, memberID string) bool {
	limit := m.opts.Config().MaxSize
	mem := g.members[memberID]
	switch g.state {
	case statePreparing:
		return (mem != nil && mem.join.is()) || g.awaiting < limit
	case stateCompleting, stateStable:
		return mem != nil || len(g.members) < limit
	}
	return true
}

// joinNew is a join without a member id.
func (m *machine) joinNew(fx *runtime.Effects, g *classicGroup, cl Client, r *kmsg.JoinGroupRequest, p *runtime.Promise) {
	if r.InstanceID != nil {
		id := *r.InstanceID + "-" + m.opts.NewMemberSuffix()
		if old, ok := g.statics[*r.InstanceID]; ok {
			m.replaceStatic(fx, g, g.members[old], id, r, p)
			return
		}
		m.addMember(fx, g, id, cl, r, p)
		return
	}
	id := cl.ID + "-" + m.opts.NewMemberSuffix()
	if r.Version < joinKnownMemberID {
		m.addMember(fx, g, id, cl, r, p)
		return
	}
	if len(g.pendingJoin) >= m.opts.Config().MaxPendingJoins {
		fx.ReplyNow(p, joinFailure(r.Version, "", codeGroupMaxSize))
		return
	}
	g.pendingJoin[id] = struct{}{}
	fx.SetTimer(sessionKey(g.id, id), millis(r.SessionTimeoutMillis), func(fx *runtime.Effects) { m.expireSession(fx, g, id) })
	fx.ReplyNow(p, joinFailure(r.Version, id, codeMemberIDRequired))
}

// joinAgain is a join with a member id: of a member, or of one that was given its id a moment ago.
func (m *machine) joinAgain(fx *runtime.Effects, g *classicGroup, cl Client, r *kmsg.JoinGroupRequest, p *runtime.Promise) {
	if _, ok := g.pendingJoin[r.MemberID]; ok && r.InstanceID == nil {
		m.addMember(fx, g, r.MemberID, cl, r, p)
		return
	}
	if code := g.validate(r.MemberID, r.InstanceID); code != 0 {
		fx.ReplyNow(p, joinFailure(r.Version, r.MemberID, code))
		return
	}
	mem := g.members[r.MemberID]
	switch same := mem.matches(r.Protocols); {
	case g.state == stateCompleting && same, g.state == stateStable && same && g.leader != mem.id:
		// It has not seen the answer to an earlier JoinGroup: nothing changes.
		fx.ReplyNow(p, joinSuccess(g, mem, r.Version))
	case g.state == stateEmpty:
		fx.ReplyNow(p, joinFailure(r.Version, r.MemberID, codeUnknownMember))
	default:
		m.updateMember(fx, g, mem, r, waiting{p, r.Version})
		m.rebalanceOrComplete(fx, g, "member "+mem.id+" joined again"+reason(r.Reason))
	}
}

// addMember makes a member and starts or joins a rebalance.
func (m *machine) addMember(fx *runtime.Effects, g *classicGroup, id string, cl Client, r *kmsg.JoinGroupRequest, p *runtime.Promise) {
	mem := &member{
		id: id, instanceID: r.InstanceID, client: cl, isNew: true,
		rebalance: rebalanceTimeout(r), session: millis(r.SessionTimeoutMillis), protocols: ownProtocols(r),
	}
	if g.state == statePreparing && g.previous == stateEmpty {
		g.newMember = true
	}
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	g.add(mem, waiting{p, r.Version})
	// A client that went away while it waits for its first generation must not hold its place for ever.
	m.renew(fx, g, mem, m.opts.Config().NewMemberJoinTimeout)
	m.rebalanceOrComplete(fx, g, "member "+id+" is new"+reason(r.Reason))
}

// updateMember gives the member its new protocols and lets w wait in place of who waited before.
func (m *machine) updateMember(fx *runtime.Effects, g *classicGroup, mem *member, r *kmsg.JoinGroupRequest, w waiting) {
	old := g.update(mem, ownProtocols(r), rebalanceTimeout(r), millis(r.SessionTimeoutMillis), w)
	if old.is() {
		fx.ReplyNow(old.promise, joinFailure(old.version, mem.id, codeRebalance))
	}
}

// replaceStatic gives a static member that came back without its id a new one (KIP-345). The old id is fenced. In a stable
// group whose protocol does not change by it nobody else notices.
func (m *machine) replaceStatic(fx *runtime.Effects, g *classicGroup, mem *member, newID string, r *kmsg.JoinGroupRequest, p *runtime.Promise) {
	invariants.Assert(g.state != stateEmpty, "group %q: static member %q in an empty group", g.id, mem.id)
	before, leaderBefore := *mem, g.leader
	if w := g.park(mem, waiting{}); w.is() {
		fx.ReplyNow(w.promise, joinFailure(w.version, mem.id, codeFencedInstance))
	}
	m.answerSync(fx, mem, nil, nil, nil, codeFencedInstance)
	fx.CancelTimer(sessionKey(g.id, mem.id))
	g.rename(mem, newID)
	mem.isNew = false
	m.updateMember(fx, g, mem, r, waiting{p, r.Version})
	m.renew(fx, g, mem, mem.session)
	switch {
	case g.state == stateStable && g.protocol != nil && g.selectProtocol() == *g.protocol:
		k, v := groupRecord(g, nil)
		fx.Append(k, v)
		fx.OnSettled(func(fx *runtime.Effects, err error) { m.staticReplaced(fx, g, mem, newID, &before, leaderBefore, err) })
	case g.state == stateStable, g.state == stateCompleting:
		m.prepareRebalance(fx, g, "static member "+newID+" came back with other protocols"+reason(r.Reason))
	default:
		m.maybeCompleteJoin(fx, g)
	}
}

// staticReplaced answers the member once its new id is committed, or gives it its old one back.
func (m *machine) staticReplaced(fx *runtime.Effects, g *classicGroup, mem *member, newID string, before *member, leaderBefore string, err error) {
	if !m.live(g) || g.members[newID] != mem {
		return // it left, or was replaced again: whoever waited was told then
	}
	if err != nil {
		m.log.Warn("static member not replaced", slog.String("group", g.id), slog.String("member", newID), slog.Any("error", err))
		w := g.update(mem, before.protocols, before.rebalance, before.session, waiting{})
		g.rename(mem, before.id)
		fx.CancelTimer(sessionKey(g.id, newID))
		m.renew(fx, g, mem, mem.session)
		if w.is() {
			resp := joinFailure(w.version, "", codeOf(err))
			resp.Generation, resp.Protocol, resp.ProtocolType = g.generation, g.protocol, nullable(g.protocolType)
			resp.LeaderID = leaderBefore
			fx.ReplyNow(w.promise, resp)
		}
		return
	}
	w := g.park(mem, waiting{})
	if !w.is() {
		return // a rebalance has answered it
	}
	resp := joinSuccess(g, mem, w.version)
	if w.version >= joinSkipAssignment {
		resp.SkipAssignment = g.leader == mem.id
	} else {
		// An older client that finds itself leader would assign; it is told the id that it does not know as its own.
		resp.LeaderID, resp.Members = leaderBefore, nil
	}
	fx.ReplyNow(w.promise, resp)
}

// joinSuccess is the answer for a member of the current generation; the leader gets all members.
func joinSuccess(g *classicGroup, mem *member, version int16) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version = version
	resp.Generation, resp.Protocol, resp.ProtocolType = g.generation, g.protocol, nullable(g.protocolType)
	resp.LeaderID, resp.MemberID = g.leader, mem.id
	if g.leader != mem.id {
		return resp
	}
	for _, o := range g.inOrder() {
		rm := kmsg.NewJoinGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = o.id, o.instanceID, o.metadata(g.protocol)
		resp.Members = append(resp.Members, rm)
	}
	return resp
}

func joinFailure(version int16, memberID string, code int16) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version, resp.MemberID, resp.ErrorCode = version, memberID, code
	return resp
}

// rebalanceTimeout of a JoinGroup 0, which has none, is its session timeout.
func rebalanceTimeout(r *kmsg.JoinGroupRequest) time.Duration {
	if r.Version == 0 {
		return millis(r.SessionTimeoutMillis)
	}
	return millis(r.RebalanceTimeoutMillis)
}

// ownProtocols copies the protocols out of the request's memory, as they outlive it.
func ownProtocols(r *kmsg.JoinGroupRequest) []kmsg.JoinGroupRequestProtocol {
	out := slices.Clone(r.Protocols)
	for i := range out {
		out[i].Metadata = slices.Clone(out[i].Metadata)
	}
	return out
}

func millis(n int32) time.Duration { return time.Duration(n) * time.Millisecond }

// nullable turns "" into null.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func reason(r *string) string {
	if r == nil || *r == "" {
		return ""
	}
	return fmt.Sprintf(" (%.200q)", *r)
}
