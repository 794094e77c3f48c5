package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/varvelog/varve/internal/base"
)

// The model is one partition, brokers with logs, leaders that act on views which may be old, and a controller that may fence
// the living. Whatever happens, each broker that ISR or ELR names and that kept its disk must hold all that was committed.

type entry struct {
	epoch base.LeaderEpoch
	id    int
}

// node is one broker. Its view of the partition is as old as its last look.
type node struct {
	up, diskLost bool
	served       bool // the controller has unfenced this incarnation
	log          []entry
	incarnation  int
	view         State
	min          int
	hw           int
	epochStart   int
	progress     map[base.BrokerID]int // of followers in this epoch: what they have acknowledged
	seen         map[base.BrokerID]int // and as which incarnation
	pending      []base.BrokerID       // proposed ISR that the view does not show yet
	proposal     *ISRChange
	proposalMin  int
}

type model struct {
	t         *testing.T
	r         *rand.Rand
	state     State
	rules     Rules
	cluster   Cluster
	nodes     map[base.BrokerID]*node
	committed []entry
	leaders   map[base.LeaderEpoch]base.BrokerID
	ids       int
	counts    map[string]int
	broken    string // a rule of the leader that is switched off, to see that the model notices
}

const (
	modelBrokers = 5
	seeds        = 10000
)

func newModel(t *testing.T, seed uint64, broken string) *model {
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), rules: Rules{MinISR: 1 + int(seed%3)}, cluster: Cluster{},
		nodes: map[base.BrokerID]*node{}, leaders: map[base.LeaderEpoch]base.BrokerID{}, counts: map[string]int{}, broken: broken,
	}
	for id := base.BrokerID(1); id <= modelBrokers; id++ {
		m.nodes[id] = &node{up: true, served: true, view: State{Leader: NoLeader, LeaderEpoch: -1}}
		m.cluster[id] = Live
	}
	m.state = State{Replicas: []base.BrokerID{1, 2, 3}, ISR: []base.BrokerID{1, 2, 3}, Leader: 1}
	m.leaders[0] = 1
	return m
}

func (m *model) any() (base.BrokerID, *node) {
	id := base.BrokerID(1 + m.r.IntN(modelBrokers))
	return id, m.nodes[id]
}

// set writes a new state and checks it against the old one.
func (m *model) set(what string, n State) error {
	old := m.state
	m.counts[what]++
	switch {
	case n.PartitionEpoch != old.PartitionEpoch+1:
		return fmt.Errorf("%s: partition epoch %d after %d", what, n.PartitionEpoch, old.PartitionEpoch)
	case n.LeaderEpoch < old.LeaderEpoch, n.Leader != old.Leader && n.LeaderEpoch == old.LeaderEpoch:
		return fmt.Errorf("%s: %+v after %+v", what, n, old)
	case n.Leader != NoLeader && !slices.Contains(n.ISR, n.Leader):
		return fmt.Errorf("%s: leader outside of its ISR: %+v", what, n)
	case n.Leader != NoLeader && n.LeaderEpoch != old.LeaderEpoch && !m.cluster[n.Leader].Alive():
		return fmt.Errorf("%s: fenced leader: %+v", what, n)
	case len(n.ISR) == 0 && slices.ContainsFunc(old.ISR, func(id base.BrokerID) bool { return m.cluster[id] != Wiped }):
		return fmt.Errorf("%s: empty ISR: %+v after %+v", what, n, old)
	}
	if l, ok := m.leaders[n.LeaderEpoch]; ok && n.Leader != NoLeader && l != n.Leader {
		return fmt.Errorf("%s: %d and %d lead in epoch %d", what, l, n.Leader, n.LeaderEpoch)
	}
	if n.Leader != NoLeader {
		m.leaders[n.LeaderEpoch] = n.Leader
	}
	m.state = n
	return nil
}

func prefix(short, long []entry) bool {
	return len(short) <= len(long) && slices.Equal(short, long[:len(short)])
}

// holders are the brokers that the state promises to hold what was committed.
func (m *model) holders() []base.BrokerID {
	return keep(slices.Concat(m.state.ISR, m.state.ELR), func(id base.BrokerID) bool { return !m.nodes[id].diskLost })
}

func (m *model) check() error {
	for _, id := range m.holders() {
		if !prefix(m.committed, m.nodes[id].log) {
			return fmt.Errorf("broker %d of %+v holds %v, committed is %v", id, m.state, m.nodes[id].log, m.committed)
		}
	}
	return nil
}

func (m *model) step() error {
	id, n := m.any()
	if leader := m.nodes[m.state.Leader]; leader != nil && m.r.IntN(2) == 0 {
		id, n = m.state.Leader, leader // who leads has more to do
	}
	switch op := m.r.IntN(100); {
	case op < 14:
		for other := base.BrokerID(1); other <= modelBrokers; other++ {
			if m.r.IntN(3) > 0 {
				m.look(other, m.nodes[other])
			}
		}
	case op < 22:
		if n.up && n.view.Leader == id {
			m.ids++
			n.log = append(n.log, entry{n.view.LeaderEpoch, m.ids})
		}
	case op < 52:
		for other := base.BrokerID(1); other <= modelBrokers; other++ {
			m.fetch(id, n, other)
		}
	case op < 64:
		return m.commit(id, n)
	case op < 70:
		m.propose(id, n)
	case op < 75:
		return m.land(id, n)
	case op < 77:
		m.crash(id, n)
	case op < 83:
		m.register(id, n)
	case op < 97:
		return m.control(id, n)
	case op < 99:
		return m.operate(id)
	default:
		m.rules.MinISR = 1 + m.r.IntN(3)
	}
	return nil
}

// look brings the view of a broker up to date.
func (m *model) look(id base.BrokerID, n *node) {
	if !n.up {
		return
	}
	if m.state.Leader == id && (n.view.Leader != id || m.state.LeaderEpoch != n.view.LeaderEpoch) {
		n.epochStart, n.hw = len(n.log), 0
		n.progress, n.seen, n.proposal = map[base.BrokerID]int{}, map[base.BrokerID]int{}, nil
	}
	if n.proposal != nil && m.state.PartitionEpoch != n.view.PartitionEpoch {
		n.proposal = nil // committed or refused: it compares the partition epoch
	}
	n.view, n.min, n.pending = m.state, m.rules.MinISR, nil
	if n.proposal != nil {
		n.pending = n.proposal.ISR
	}
	if !n.served && m.broken != "fenced" && n.view.Leader == id {
		n.view.Leader = NoLeader // what it led before its registration it leads no more
	}
}

// fetch lets a follower fetch some from the leader that it knows: it acknowledges what it has, then gets more.
func (m *model) fetch(id base.BrokerID, f *node, leader base.BrokerID) {
	l := m.nodes[leader]
	if id == leader || !f.up || !l.up || f.view.Leader != leader || l.view.Leader != leader || f.view.LeaderEpoch != l.view.LeaderEpoch ||
		!slices.Contains(l.view.Replicas, id) {
		return
	}
	common := 0
	for common < min(len(f.log), len(l.log)) && f.log[common] == l.log[common] {
		common++
	}
	if common < len(f.log) {
		f.log = slices.Clone(f.log[:common])
		return
	}
	l.progress[id], l.seen[id] = common, f.incarnation
	f.log = slices.Concat(f.log, l.log[common:min(len(l.log), common+1+m.r.IntN(3))])
}

// commit advances a leader's high watermark as cluster.md and doc.go say.
func (m *model) commit(id base.BrokerID, n *node) error {
	if !n.up || n.view.Leader != id || len(n.view.ISR) < EffectiveMinISR(n.min, len(n.view.Replicas)) && m.broken != "min" ||
		len(n.view.ELR) > 0 && m.broken != "elr" {
		return nil
	}
	hw := len(n.log)
	for _, other := range slices.Concat(n.view.ISR, n.pending) {
		if other != id && (m.broken != "pending" || slices.Contains(n.view.ISR, other)) {
			hw = min(hw, n.progress[other])
		}
	}
	n.hw = max(n.hw, hw)
	mine := n.log[:n.hw]
	if !prefix(mine, m.committed) && !prefix(m.committed, mine) {
		return fmt.Errorf("leader %d commits %v, committed is %v", id, mine, m.committed)
	}
	if len(mine) > len(m.committed) {
		m.counts["commit"]++
		m.committed = slices.Clone(mine)
	}
	return nil
}

// propose sends a change of the ISR on its way: one at a time.
func (m *model) propose(id base.BrokerID, n *node) {
	if !n.up || n.view.Leader != id || n.proposal != nil {
		return
	}
	isr := n.view.ISR
	other, _ := m.any()
	switch {
	case other == id:
		return
	case slices.Contains(isr, other):
		isr = without(isr, []base.BrokerID{other})
	case slices.Contains(n.view.Replicas, other) && n.seen[other] == m.nodes[other].incarnation &&
		n.progress[other] >= n.hw && (n.progress[other] >= n.epochStart || m.broken == "epochstart"):
		isr = slices.Concat(isr, []base.BrokerID{other})
	default:
		return
	}
	n.proposal = &ISRChange{Leader: id, LeaderEpoch: n.view.LeaderEpoch, PartitionEpoch: n.view.PartitionEpoch, ISR: isr}
	n.pending, n.proposalMin = isr, n.min
}

// land lets a proposal reach the metadata, where it compares the partition and the registrations of those that join.
func (m *model) land(_ base.BrokerID, n *node) error {
	p := n.proposal
	if p == nil {
		return nil
	}
	for _, id := range p.ISR {
		if !slices.Contains(n.view.ISR, id) && n.seen[id] != m.nodes[id].incarnation {
			return nil
		}
	}
	next, err := ChangeISR(m.state, *p, m.cluster, Rules{MinISR: n.proposalMin})
	if err != nil {
		return nil //nolint:nilerr // refused
	}
	return m.set("isr", next)
}

// crash stops a broker; its disk may be lost as long as another holds what was committed.
func (m *model) crash(id base.BrokerID, n *node) {
	if !n.up {
		return
	}
	n.up, n.proposal = false, nil
	others := without(m.holders(), []base.BrokerID{id})
	if len(others) > 0 && m.r.IntN(3) == 0 {
		n.log, n.diskLost = nil, true
		m.counts["disk lost"]++
	}
}

// register starts a broker that is down: fenced, and marked where its disk is another.
func (m *model) register(id base.BrokerID, n *node) {
	if n.up {
		return
	}
	*n = node{up: true, diskLost: n.diskLost, log: n.log, incarnation: n.incarnation + 1, view: State{Leader: NoLeader, LeaderEpoch: -1}}
	if n.diskLost || m.cluster[id] == Wiped {
		m.cluster[id] = Wiped
	} else {
		m.cluster[id] = Fenced
	}
}

// control is one act of the controller.
func (m *model) control(id base.BrokerID, n *node) error {
	switch m.r.IntN(6) {
	case 0: // rightly or not
		if m.cluster[id].Alive() && (!n.up || m.r.IntN(4) == 0) {
			m.cluster[id] = Fenced
		}
	case 1:
		if m.cluster[id].Alive() {
			m.cluster[id] = []Status{Live, Leaving, FullDraining, Full, Draining}[m.r.IntN(5)]
		}
	case 2:
		involved := slices.Contains(m.state.ISR, id) || slices.Contains(m.state.ELR, id)
		if n.up && !m.cluster[id].Alive() && m.state.Leader != id && !(m.cluster[id] == Wiped && involved) {
			m.cluster[id], n.diskLost, n.served = Live, false, true
		}
	default:
		next, changed := Next(m.state, m.cluster, m.rules)
		if !changed {
			return nil
		}
		if again, more := Next(next, m.cluster, m.rules); more {
			return fmt.Errorf("not settled: %+v, then %+v", next, again)
		}
		return m.set("next", next)
	}
	return nil
}

// operate is one act of an operator.
func (m *model) operate(id base.BrokerID) error {
	var next State
	var err error
	what := "reassign"
	switch m.r.IntN(4) {
	case 0:
		target := []base.BrokerID{id, id%modelBrokers + 1, (id+1)%modelBrokers + 1}[:1+m.r.IntN(3)]
		next, err = Reassign(m.state, target, m.cluster, m.rules)
	case 1:
		what = "cancel"
		next, err = CancelReassignment(m.state, m.cluster, m.rules)
	default:
		what = "preferred"
		next, err = ElectPreferred(m.state, m.cluster)
	}
	if err != nil || next.PartitionEpoch == m.state.PartitionEpoch {
		return nil //nolint:nilerr // refused
	}
	return m.set(what, next)
}

func (m *model) run(steps int) error {
	for range steps {
		before := m.state
		if err := m.step(); err != nil {
			return err
		}
		if err := m.check(); err != nil {
			return fmt.Errorf("%w (before: %+v)", err, before)
		}
	}
	return nil
}

func TestModel(t *testing.T) {
	counts := map[string]int{}
	for seed := range uint64(seeds) {
		m := newModel(t, seed, "")
		if err := m.run(600); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for k, v := range m.counts {
			counts[k] += v
		}
	}
	t.Log(counts)
	for _, what := range []string{"next", "isr", "commit", "disk lost", "reassign", "cancel", "preferred"} {
		if counts[what] < 100 {
			t.Errorf("%s happened %d times: the model tests little", what, counts[what])
		}
	}
}

// TestModelNotices switches off one rule of the leader at a time. That of min.insync.replicas is not among them: it is a
// promise to producers, and what the ELR promises follows from the rule of the ELR alone.
func TestModelNotices(t *testing.T) {
	for _, broken := range []string{"elr", "pending", "epochstart", "fenced"} {
		noticed := false
		for seed := uint64(0); seed < 2*seeds && !noticed; seed++ {
			if err := newModel(t, seed, broken).run(600); err != nil {
				t.Logf("without rule %s, seed %d: %v", broken, seed, err)
				noticed = true
			}
		}
		if !noticed {
			t.Errorf("nothing was wrong without rule %q", broken)
		}
	}
}
