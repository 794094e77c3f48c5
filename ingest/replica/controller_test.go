package replica

import (
	"fmt"
	"slices"

	"github.com/varvelog/varve/internal/base"
)

// refController is the reference: the partition's key and the registrations, changed by compare-and-swap only. Unclean
// election is off.
type refController struct {
	rev      int64 // of the store
	keyRev   int64 // of the partition's key
	epoch    base.LeaderEpoch
	leader   base.BrokerID // -1: none
	replicas []base.BrokerID
	isr, elr []base.BrokerID
	min      int
	brokers  map[base.BrokerID]*registration
	images   []image // one per revision of the store
}

type registration struct {
	epoch  int64
	fenced bool
}

// image is what brokers see of one revision, later or never.
type image struct {
	state  State
	leader base.BrokerID
	live   Live
}

func newRefController(n, minInSync int) *refController {
	c := &refController{leader: 1, min: minInSync, brokers: map[base.BrokerID]*registration{}}
	for id := base.BrokerID(1); id <= base.BrokerID(n); id++ {
		c.replicas = append(c.replicas, id)
		c.rev++
		c.brokers[id] = &registration{epoch: c.rev}
	}
	c.isr = slices.Clone(c.replicas)
	c.epoch = 1
	c.write(true)
	return c
}

// write ends a change: it takes effect at the next revision.
func (c *refController) write(key bool) {
	c.rev++
	if key {
		c.keyRev = c.rev
	}
	live := Live{}
	for id, r := range c.brokers {
		if !r.fenced {
			live[id] = Broker{Epoch: r.epoch}
		}
	}
	c.images = append(c.images, image{c.state(), c.leader, live})
}

func (c *refController) state() State {
	return State{Rev: c.keyRev, Epoch: c.epoch, Replicas: c.replicas, ISR: slices.Clone(c.isr), MinInSync: c.min}
}

func (c *refController) fenced(id base.BrokerID) bool { return c.brokers[id].fenced }

// setISR keeps the ELR as KIP-966 does: who leaves an ISR that falls below the minimum stays eligible.
func (c *refController) setISR(isr []base.BrokerID) {
	old := append(slices.Clone(c.elr), c.isr...)
	c.isr, c.elr = isr, nil
	if len(isr) >= min(c.min, len(c.replicas)) {
		return
	}
	for _, id := range c.replicas {
		if slices.Contains(old, id) && !slices.Contains(isr, id) {
			c.elr = append(c.elr, id)
		}
	}
}

// elect gives the partition its next epoch: ISR first, then ELR, else nobody. to >= 0 names a candidate.
func (c *refController) elect(to base.BrokerID) {
	c.epoch++
	c.leader = -1
	for _, from := range [][]base.BrokerID{c.isr, c.elr} {
		for _, id := range from {
			if c.leader == -1 && !c.fenced(id) && (to < 0 || to == id) {
				c.leader = id
			}
		}
	}
	if c.leader >= 0 && !slices.Contains(c.isr, c.leader) {
		c.setISR([]base.BrokerID{c.leader})
	}
}

// fence takes a broker out. The last member of the ISR stays in it.
func (c *refController) fence(id base.BrokerID) {
	c.brokers[id].fenced = true
	changed := c.leader == id
	if rest := without(c.isr, id); len(rest) < len(c.isr) && len(rest) > 0 {
		c.setISR(rest)
		changed = true
	}
	if c.leader == id {
		c.elect(-1)
	}
	c.write(changed)
}

func (c *refController) unfence(id base.BrokerID) {
	c.brokers[id].fenced = false
	lost := c.leader == -1
	if lost {
		c.elect(-1)
	}
	c.write(lost)
}

// register is a broker's start. One with a new disk leaves ISR and ELR (I14); one that led leads no more.
func (c *refController) register(id base.BrokerID, newDisk bool) int64 {
	c.brokers[id].fenced = true
	if newDisk {
		c.elr = without(c.elr, id)
		if slices.Contains(c.isr, id) {
			c.setISR(without(c.isr, id))
			c.elr = without(c.elr, id)
		}
	}
	if c.leader == id {
		c.elect(-1)
	}
	c.brokers[id].epoch = c.rev + 1
	c.write(true)
	return c.rev
}

// setMin changes min.insync.replicas. What is eligible under one minimum need not be under another: the ELR goes, in the same
// transaction.
func (c *refController) setMin(n int) {
	c.min, c.elr = n, nil
	c.write(true)
}

// swap is a leader's compare-and-swap.
func (c *refController) swap(from base.BrokerID, p *Proposal) bool {
	if c.keyRev != p.Rev || c.epoch != p.Epoch || c.leader != from {
		return false
	}
	for _, m := range p.Added {
		if r := c.brokers[m.ID]; r.fenced || r.epoch != m.BrokerEpoch {
			return false
		}
	}
	c.setISR(slices.Clone(p.ISR))
	c.write(true)
	return true
}

// spare reports whether the disk of a broker may be lost: what it holds is held by another that may lead.
func (c *refController) spare(id base.BrokerID) bool {
	if !slices.Contains(c.isr, id) {
		return true
	}
	return len(c.isr) > 1
}

func (c *refController) String() string {
	fenced := []base.BrokerID{}
	for _, id := range c.replicas {
		if c.fenced(id) {
			fenced = append(fenced, id)
		}
	}
	return fmt.Sprintf("leader=%d epoch=%d isr=%v elr=%v min=%d fenced=%v", c.leader, c.epoch, c.isr, c.elr, c.min, fenced)
}

func without(ids []base.BrokerID, id base.BrokerID) []base.BrokerID {
	return slices.DeleteFunc(slices.Clone(ids), func(x base.BrokerID) bool { return x == id })
}
