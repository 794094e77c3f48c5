package group

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/invariants"
)

// groupState is the state of a classic group; its String is what stands on the wire.
type groupState int8

const (
	stateDead       groupState = iota // not stored: what DescribeGroups says of a group that does not exist
	stateEmpty                        // no members; offsets may be there
	statePreparing                    // members are asked to join again
	stateCompleting                   // all have joined; the leader's assignment is awaited
	stateStable                       // every member has, or can fetch, its assignment
)

func (s groupState) String() string {
	return [...]string{"Dead", "Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// consumerProtocolType is the protocol type of groups of consumers (ConsumerProtocol.PROTOCOL_TYPE).
const consumerProtocolType = "consumer"

// classicGroup is a group of the classic protocol (Kafka's ClassicGroup). It knows members and states and nothing of
// requests, records or timers; machine's methods use it.
type classicGroup struct {
	id         string
	state      groupState
	previous   groupState // the state before this one
	sinceMs    int64      // when state was entered, -1 if unknown; expiry of offsets counts from it
	generation int32

	protocolType string  // "" if none: a group that was made by an offset commit
	protocol     *string // the assignor that was selected, nil if none
	leader       string  // member id, "" if none

	members     map[string]*member  // by member id
	statics     map[string]string   // group.instance.id -> member id
	pendingJoin map[string]struct{} // ids that were handed out (KIP-394) and did not come back yet
	pendingSync map[string]struct{} // members of the generation that have not synced
	supported   map[string]int      // protocol -> members that support it
	awaiting    int                 // members that wait in JoinGroup
	nextSeq     int64

	newMember bool // a member was added since the initial rebalance delay began
	storing   bool // the leader's assignment of this generation is being committed

	subscribed      map[string]struct{} // topics of all members, if subscribedKnown
	subscribedKnown bool
}

// member is a member of a classic group.
type member struct {
	id         string
	seq        int64 // order of joining; a replaced static member passes its on
	instanceID *string
	client     Client
	rebalance  time.Duration // rebalance timeout
	session    time.Duration // session timeout
	protocols  []kmsg.JoinGroupRequestProtocol
	assignment []byte
	isNew      bool // has not seen the end of its first rebalance
	join, sync waiting
}

// waiting is a caller that is parked; the zero value is nobody.
type waiting struct {
	promise *runtime.Promise
	version int16
}

func (w waiting) is() bool { return w.promise != nil }

func newClassicGroup(id string, nowMs int64) *classicGroup {
	return &classicGroup{
		id: id, state: stateEmpty, previous: stateDead, sinceMs: nowMs,
		members: map[string]*member{}, statics: map[string]string{},
		pendingJoin: map[string]struct{}{}, pendingSync: map[string]struct{}{}, supported: map[string]int{},
	}
}

// inOrder returns the members in the order they joined.
func (g *classicGroup) inOrder() []*member {
	all := make([]*member, 0, len(g.members))
	for _, m := range g.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

func (g *classicGroup) add(m *member, w waiting) {
	invariants.Assert(g.members[m.id] == nil, "group %q: member %q added twice", g.id, m.id)
	if m.instanceID != nil {
		g.statics[*m.instanceID] = m.id
	}
	if g.leader == "" {
		g.leader = m.id
	}
	g.nextSeq++
	m.seq = g.nextSeq
	g.members[m.id] = m
	g.count(m, 1)
	if m.join = w; w.is() {
		g.awaiting++
	}
	delete(g.pendingJoin, m.id)
}

func (g *classicGroup) remove(id string) {
	if m := g.members[id]; m != nil {
		delete(g.members, id)
		g.count(m, -1)
		if m.join.is() {
			g.awaiting--
		}
		if m.instanceID != nil {
			delete(g.statics, *m.instanceID)
		}
	}
	if g.leader == id {
		g.leader = ""
		for _, m := range g.members {
			if l := g.members[g.leader]; l == nil || m.seq < l.seq {
				g.leader = m.id
			}
		}
	}
	delete(g.pendingJoin, id)
	delete(g.pendingSync, id)
}

// update gives a member what its new JoinGroup says, and returns who waited in an older one.
func (g *classicGroup) update(m *member, protocols []kmsg.JoinGroupRequestProtocol, rebalance, session time.Duration,
	w waiting,
) (replaced waiting) {
	g.count(m, -1)
	m.protocols, m.rebalance, m.session = protocols, rebalance, session
	g.count(m, 1)
	replaced = g.park(m, w)
	return replaced
}

// park makes w the caller that waits for the member's JoinGroup answer; the zero value means none does.
func (g *classicGroup) park(m *member, w waiting) (replaced waiting) {
	replaced = m.join
	if replaced.is() {
		g.awaiting--
	}
	if m.join = w; w.is() {
		g.awaiting++
	}
	return replaced
}

// rename replaces the id of a static member (KIP-345).
func (g *classicGroup) rename(m *member, id string) {
	delete(g.members, m.id)
	if g.leader == m.id {
		g.leader = id
	}
	if _, ok := g.pendingSync[m.id]; ok {
		delete(g.pendingSync, m.id)
		g.pendingSync[id] = struct{}{}
	}
	m.id = id
	g.members[id] = m
	g.statics[*m.instanceID] = id
}

func (g *classicGroup) count(m *member, n int) {
	for i, p := range m.protocols {
		if slices.ContainsFunc(m.protocols[:i], func(q kmsg.JoinGroupRequestProtocol) bool { return q.Name == p.Name }) {
			continue
		}
		if g.supported[p.Name] += n; g.supported[p.Name] == 0 {
			delete(g.supported, p.Name)
		}
	}
}

// supports reports whether a member with these protocols could be in the group.
func (g *classicGroup) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if g.state == stateEmpty {
		return protocolType != "" && len(protocols) > 0
	}
	return g.protocolType == protocolType && slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return g.supported[p.Name] == len(g.members)
	})
}

// selectProtocol counts votes: each member votes for the first of its protocols that all members support. Of several
// with most votes Kafka takes the first in the iteration order of a Java hash map, and so do we.
func (g *classicGroup) selectProtocol() string {
	votes := map[string]int{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.supported[p.Name] == len(g.members) {
				votes[p.Name]++
				break
			}
		}
	}
	names := make([]string, 0, len(votes))
	for n := range votes {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(votes[b], votes[a]), cmp.Compare(javaBucket(a), javaBucket(b)), cmp.Compare(a, b))
	})
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// matches reports whether the protocols are those the member has already, metadata included.
func (m *member) matches(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b kmsg.JoinGroupRequestProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// metadata is the member's metadata for a protocol, nil if it does not support it.
func (m *member) metadata(protocol *string) []byte {
	if protocol == nil {
		return nil
	}
	for _, p := range m.protocols {
		if p.Name == *protocol {
			return p.Metadata
		}
	}
	return nil
}

func (g *classicGroup) allJoined() bool {
	return len(g.members) == g.awaiting && len(g.pendingJoin) == 0
}

// rebalanceTimeout is the longest of the members'.
func (g *classicGroup) rebalanceTimeout() time.Duration {
	var d time.Duration
	for _, m := range g.members {
		d = max(d, m.rebalance)
	}
	return d
}

// canRebalance reports whether a rebalance may start in this state.
func (g *classicGroup) canRebalance() bool {
	return g.state == stateStable || g.state == stateCompleting || g.state == stateEmpty
}

func (g *classicGroup) enter(s groupState, nowMs int64) {
	g.previous, g.state, g.sinceMs = g.state, s, nowMs
}

// electLeader keeps the leader if it has joined again, else takes the first member that has. It reports false if none
// has.
func (g *classicGroup) electLeader() bool {
	if l := g.members[g.leader]; l != nil && l.join.is() {
		return true
	}
	for _, m := range g.inOrder() {
		if m.join.is() {
			g.leader = m.id
			return true
		}
	}
	return false
}

// nextGeneration ends the joining.
func (g *classicGroup) nextGeneration(nowMs int64) {
	g.generation++
	g.storing = false
	if len(g.members) > 0 {
		p := g.selectProtocol()
		g.protocol = &p
		g.enter(stateCompleting, nowMs)
	} else {
		g.protocol = nil
		g.enter(stateEmpty, nowMs)
	}
	g.readSubscriptions()
	clear(g.pendingSync)
}

// readSubscriptions finds which topics the members consume, as far as their bytes can be read.
func (g *classicGroup) readSubscriptions() {
	g.subscribed, g.subscribedKnown = nil, false
	if g.protocolType != consumerProtocolType || (len(g.members) > 0 && g.protocol == nil) {
		return
	}
	topics := map[string]struct{}{}
	for _, m := range g.members {
		if !subscribedTopics(m.metadata(g.protocol), func(t string) { topics[t] = struct{}{} }) {
			return
		}
	}
	g.subscribed, g.subscribedKnown = topics, true
}

// subscribedTo reports whether a member consumes the topic; of a consumer group whose bytes cannot be read it is assumed.
func (g *classicGroup) subscribedTo(topic string) bool {
	if g.subscribedKnown {
		_, ok := g.subscribed[topic]
		return ok
	}
	return g.protocolType == consumerProtocolType
}

// validate checks a member id and instance id against the group. It returns 0, UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID.
func (g *classicGroup) validate(memberID string, instanceID *string) int16 {
	if instanceID != nil {
		switch id, ok := g.statics[*instanceID]; {
		case !ok:
			return codeUnknownMember
		case id != memberID:
			return codeFencedInstance
		}
	}
	if g.members[memberID] == nil {
		return codeUnknownMember
	}
	return 0
}
