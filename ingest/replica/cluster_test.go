package replica

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/varvelog/varve/internal/base"
)

// message is on its way. Any may be lost, late, or overtaken by later ones.
type message struct {
	from, to    base.BrokerID
	brokerEpoch int64     // of the follower when it sent the fetch
	fetch       *Position // request of a follower
	response    *Response
	proposal    *Proposal // to the controller
	committed   *State    // its answers, with the key as it was then
	refused     *State
	rev         int64 // of the refused proposal
}

// cluster is brokers, controller and network in one process, and what must hold at every step.
type cluster struct {
	ctl       *refController
	nodes     []*node // id is index+1
	inFlight  []message
	now       time.Time
	lastValue uint64
	waiting   map[Token]rec
	trace     func(string)

	committed []rec // everything that any high watermark has shown to a reader (I3)
	ackedEnd  base.Offset
	written   map[[2]int64]rec // by offset and epoch (I2)
	broken    string           // the first violation
}

func newCluster(n, minInSync int) *cluster {
	c := &cluster{
		ctl: newRefController(n, minInSync), now: time.Unix(1000, 0),
		waiting: map[Token]rec{}, written: map[[2]int64]rec{}, trace: func(string) {},
	}
	for id := base.BrokerID(1); id <= base.BrokerID(n); id++ {
		c.nodes = append(c.nodes, &node{c: c, id: id, up: true, brokerEpoch: c.ctl.brokers[id].epoch, memory: memory{seen: -1}})
	}
	return c
}

func (c *cluster) node(id base.BrokerID) *node { return c.nodes[id-1] }
func (c *cluster) send(m message)              { c.inFlight = append(c.inFlight, m) }
func (c *cluster) note(format string, args ...any) {
	c.trace(fmt.Sprintf(format, args...))
}

func (c *cluster) fail(format string, args ...any) {
	if c.broken == "" {
		c.broken = fmt.Sprintf(format, args...)
	}
}

// deliver takes message i off the network.
func (c *cluster) deliver(i, maxRecords int) {
	m := c.inFlight[i]
	c.inFlight = slices.Delete(c.inFlight, i, i+1)
	switch {
	case m.fetch != nil:
		if n := c.node(m.to); n.up {
			r := n.serve(m, maxRecords)
			c.send(message{from: m.to, to: m.from, response: &r, brokerEpoch: m.brokerEpoch})
		}
	case m.response != nil:
		// A connection ends with the process.
		if n := c.node(m.to); n.up && n.brokerEpoch == m.brokerEpoch {
			n.receive(*m.response)
		}
	case m.proposal != nil:
		if c.ctl.swap(m.from, m.proposal) {
			s := c.ctl.state()
			c.send(message{to: m.from, committed: &s})
		} else {
			s := c.ctl.state()
			c.send(message{to: m.from, refused: &s, rev: m.proposal.Rev})
		}
	default:
		n := c.node(m.to)
		if !n.up || n.leader == nil {
			return
		}
		if m.committed != nil {
			n.effects(n.leader.Update(*m.committed))
		} else {
			n.effects(n.leader.Refused(m.rev, *m.refused))
		}
	}
}

func (a rec) same(b rec) bool {
	return a.epoch == b.epoch && a.value == b.value && bytes.Equal(a.batch, b.batch)
}

// appended checks what a log got from offset first on (I2): one offset in one epoch is one record, wherever it stands.
func (c *cluster) appended(n *node, first int) {
	for i := first; i < len(n.log); i++ {
		r := n.log[i]
		key := [2]int64{int64(i), int64(r.epoch)}
		if w, ok := c.written[key]; ok && !w.same(r) {
			c.fail("I2: offset %d of epoch %d is %d on broker %d, elsewhere %d", i, r.epoch, r.value, n.id, w.value)
		}
		c.written[key] = r
		if i > 0 && n.log[i-1].epoch > r.epoch {
			c.fail("I2: epochs of broker %d fall at offset %d", n.id, i)
		}
	}
}

// truncated checks that nobody who may lead loses what a reader has seen. A replica outside of ISR and ELR may: it can hold a
// record that its stale leader does not have, and that a later leader, which counts others, has committed since (seed 10969).
func (c *cluster) truncated(n *node, to base.Offset) {
	if !slices.Contains(c.ctl.isr, n.id) && !slices.Contains(c.ctl.elr, n.id) {
		return
	}
	for i := int(to); i < len(n.log) && i < len(c.committed); i++ {
		if n.log[i].same(c.committed[i]) {
			c.fail("I3: broker %d truncates to %d, and offset %d was committed", n.id, to, i)
		}
	}
}

// exposed checks what the high watermark of a replica shows to readers (I3).
func (c *cluster) exposed(n *node, end base.Offset) {
	if end > base.Offset(len(n.log)) {
		c.fail("high watermark %d of broker %d past its end %d", end, n.id, len(n.log))
		return
	}
	for i := 0; i < int(end); i++ {
		switch {
		case i == len(c.committed):
			c.committed = append(c.committed, n.log[i])
		case !n.log[i].same(c.committed[i]):
			c.fail("I3: readers saw %d at offset %d, broker %d shows %d", c.committed[i].value, i, n.id, n.log[i].value)
		}
	}
}

// acked checks what it means that a producer was told (I1).
func (c *cluster) acked(n *node, r rec) {
	at := slices.IndexFunc(n.log, func(x rec) bool { return x.value == r.value })
	if at < 0 {
		c.fail("I1: broker %d acknowledged %d, which it does not have", n.id, r.value)
		return
	}
	c.ackedEnd = max(c.ackedEnd, base.Offset(at)+1)
	copies := 0
	for _, other := range c.nodes {
		has := other.syncedEnd() > base.Offset(at) && other.durable[at].same(n.log[at])
		if has {
			copies++
		}
		counted := other.id == n.id || n.leader.counts(other.id)
		if !has && counted && !c.lostDisk(other) { // a disk may have been lost since the follower's fetch
			c.fail("I1: %d was acknowledged and is not on the disk of broker %d, which counted", r.value, other.id)
		}
	}
	if copies < n.leader.minInSync() && !c.anyLostDisk() {
		c.fail("I1: %d was acknowledged on %d disks", r.value, copies)
	}
	if at >= len(c.committed) {
		c.fail("I1: %d was acknowledged above every high watermark", r.value)
	}
}

func (c *cluster) lostDisk(n *node) bool { return n.disks > 0 }
func (c *cluster) anyLostDisk() bool     { return slices.ContainsFunc(c.nodes, c.lostDisk) }

// check is what holds after each step: the leader that the controller named has everything that anybody was shown, and where
// it answers where the log ends, that is not below what was acknowledged.
func (c *cluster) check() string {
	if c.broken != "" || c.ctl.leader < 0 {
		return c.broken
	}
	n := c.node(c.ctl.leader)
	log := n.durable // what is exposed is synced
	if n.up {
		log = log[:n.syncedEnd()]
	}
	if last := len(c.committed) - 1; last >= 0 && !n.wiped && (len(log) <= last || !log[last].same(c.committed[last])) {
		c.fail("I1, I3: broker %d leads epoch %d without offset %d, which was committed", n.id, c.ctl.epoch, last)
	}
	if n.up && n.leader != nil && n.leader.state.Epoch == c.ctl.epoch {
		if end, ok := n.leader.Readable(); ok && end < c.ackedEnd {
			c.fail("readers of epoch %d are told an end of %d, acknowledged was %d", c.ctl.epoch, end, c.ackedEnd)
		}
	}
	return c.broken
}

// settle is peace: everybody is up and unfenced, every message arrives, and time passes.
func (c *cluster) settle() string {
	for round := range 60 {
		for _, n := range c.nodes {
			if !n.up {
				n.start()
			}
			if c.ctl.fenced(n.id) {
				c.ctl.unfence(n.id)
			}
			n.see(len(c.ctl.images) - 1)
			n.sync(len(n.ops))
			n.fetch()
		}
		for len(c.inFlight) > 0 && c.broken == "" {
			c.deliver(0, 100)
			for _, n := range c.nodes {
				n.sync(len(n.ops))
			}
		}
		c.now = c.now.Add(time.Second)
		for _, n := range c.nodes {
			if n.leader != nil {
				n.effects(n.leader.Tick(c.now))
				n.timeOut()
			}
			if n.leader != nil && round == 30 {
				if err := n.append(1); err != nil {
					c.fail("after 30 quiet rounds: %v", err)
				}
			}
		}
		if c.check() != "" {
			return c.broken
		}
	}
	if c.ctl.leader < 0 {
		c.fail("no leader")
		return c.broken
	}
	l := c.node(c.ctl.leader)
	for _, n := range c.nodes {
		if !slices.EqualFunc(n.log, l.log, rec.same) || n.hw != base.Offset(len(n.log)) {
			c.fail("brokers %d and %d do not converge", n.id, l.id)
		}
	}
	if len(c.ctl.isr) < len(c.nodes) || len(c.waiting) > 0 {
		c.fail("ISR %v, %d appends without an answer", c.ctl.isr, len(c.waiting))
	}
	return c.broken
}
