package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/varvelog/varve/internal/base"
)

// MaxPartitionsPerTopic bounds the index of a partition, and with it what one key can make an image allocate.
const MaxPartitionsPerTopic = 100_000

// change is an image under construction: a snapshot of the one before, and what has been touched so far.
type change struct {
	*Image
	topics       map[string]struct{}       // names to assemble again
	owned        map[base.TopicID]struct{} // partition slices that were copied in this change
	reconfigured bool
	bad          []error
}

// apply returns a new image with the events applied, and the keys that could not be read: they keep their former value.
func (i *Image) apply(events []Event, revision int64) (*Image, []error) {
	next := *i
	next.records = i.records.snapshot()
	next.partitions = i.partitions.snapshot()
	next.byName = i.byName.snapshot()
	next.byID = i.byID.snapshot()
	next.logs = i.logs.snapshot()
	next.configs = i.configs.snapshot()
	next.revision = max(revision, i.revision)
	c := &change{Image: &next, topics: map[string]struct{}{}, owned: map[base.TopicID]struct{}{}}
	for _, e := range events {
		if err := c.event(e); err != nil {
			c.bad = append(c.bad, err)
		}
	}
	c.finish()
	return &next, c.bad
}

func (c *change) event(e Event) error {
	key := e.KV.Key
	switch {
	case key == clusterKey:
		return c.cluster(e)
	case key == controllerKey:
		return c.control(e)
	case strings.HasPrefix(key, topicPrefix):
		return c.topic(key[len(topicPrefix):], e)
	case strings.HasPrefix(key, partitionPrefix):
		return c.partition(key[len(partitionPrefix):], e)
	case strings.HasPrefix(key, configPrefix):
		return c.config(key[len(configPrefix):], e)
	case strings.HasPrefix(key, brokerPrefix):
		return c.brokerEvent(key[len(brokerPrefix):], e)
	default:
		return nil // of a later version
	}
}

func (c *change) cluster(e Event) error {
	if e.Deleted {
		return nil // the id is for ever
	}
	r, err := decode[clusterRecord](e.KV)
	if err == nil {
		c.clusterID = r.ID
	}
	return err
}

func (c *change) control(e Event) error {
	if e.Deleted {
		c.controller, c.claimed = -1, 0
		return nil
	}
	r, err := decode[controllerRecord](e.KV)
	if err == nil {
		c.controller, c.claimed = r.Broker, e.KV.ModRevision
	}
	return err
}

func (c *change) topic(name string, e Event) error {
	if e.Deleted {
		c.records.remove(name)
		c.topics[name] = struct{}{}
		return nil
	}
	r, err := decode[topicRecord](e.KV)
	if err != nil {
		return err
	}
	c.records.set(name, r)
	c.topics[name] = struct{}{}
	return nil
}

func (c *change) partition(rest string, e Event) error {
	id, index, err := parsePartitionKey(rest)
	if err != nil {
		return base.MarkCorruption(err)
	}
	slots, _ := c.partitions.get(id)
	if e.Deleted {
		if int(index) >= len(slots) || slots[index].Log == 0 {
			return nil
		}
		c.topics[slots[index].TP.Topic] = struct{}{}
		c.logs.remove(slots[index].Log)
		slots = c.ownPartitions(id, slots, len(slots))
		slots[index] = Partition{}
		c.trim(id, slots)
		return nil
	}
	r, err := decode[partitionRecord](e.KV)
	if err != nil {
		return err
	}
	if r.Log == 0 {
		return base.MarkCorruption(fmt.Errorf("metadata key %s: no log id", e.KV.Key))
	}
	slots = c.ownPartitions(id, slots, int(index)+1)
	if was := slots[index]; was.Log != 0 && was.Log != r.Log {
		c.logs.remove(was.Log)
	}
	slots[index] = r.partition(id, index, e.KV.ModRevision)
	c.partitions.set(id, slots)
	c.logs.set(r.Log, partitionRef{topic: id, index: index})
	c.topics[r.Topic] = struct{}{}
	return nil
}

// ownPartitions returns the slots of a topic for change, at least n of them: earlier images share the slice.
func (c *change) ownPartitions(id base.TopicID, slots []Partition, n int) []Partition {
	if _, owned := c.owned[id]; !owned {
		slots = slices.Clone(slots)
		c.owned[id] = struct{}{}
	}
	if n > len(slots) {
		slots = append(slots, make([]Partition, n-len(slots))...)
	}
	return slots
}

// trim drops the holes at the end, and the topic where nothing else is left.
func (c *change) trim(id base.TopicID, slots []Partition) {
	for len(slots) > 0 && slots[len(slots)-1].Log == 0 {
		slots = slots[:len(slots)-1]
	}
	if len(slots) == 0 {
		c.partitions.remove(id)
		delete(c.owned, id)
		return
	}
	c.partitions.set(id, slots)
}

func (c *change) config(name string, e Event) error {
	if e.Deleted {
		c.configs.remove(name)
	} else {
		values, err := decode[map[string]string](e.KV)
		if err != nil {
			return err
		}
		c.configs.set(name, values)
	}
	if topic, ok := strings.CutPrefix(name, "topic/"); ok {
		c.topics[topic] = struct{}{}
	} else if name == c.local.resource() || name == "broker/"+clusterDefaultID {
		c.reconfigured = true
	}
	return nil
}

func (c *change) brokerEvent(rest string, e Event) error {
	n, err := strconv.ParseInt(rest, 10, 32)
	if err != nil {
		return base.MarkCorruption(err)
	}
	id := base.BrokerID(n)
	c.brokers = maps.Clone(c.brokers)
	if e.Deleted {
		delete(c.brokers, id)
		return nil
	}
	r, err := decode[brokerRecord](e.KV)
	if err != nil {
		return err
	}
	c.brokers[id] = r.broker(id, e.KV.ModRevision)
	return nil
}

// finish assembles what was touched.
func (c *change) finish() {
	if c.reconfigured {
		c.reconfigure()
		for name := range c.records.all {
			c.topics[name] = struct{}{}
		}
	}
	for name := range c.topics {
		c.assemble(name)
	}
	c.seal()
}

// assemble makes a topic visible, changed or gone. One whose partition keys are not complete stays hidden.
func (c *change) assemble(name string) {
	old, had := c.byName.get(name)
	r, exists := c.records.get(name)
	slots, _ := c.partitions.get(r.ID)
	if had && (!exists || old.ID != r.ID) {
		c.byID.remove(old.ID)
	}
	if !exists || r.Partitions < 1 || int(r.Partitions) > len(slots) || slices.ContainsFunc(slots[:r.Partitions], func(p Partition) bool { return p.Log == 0 }) {
		c.byName.remove(name)
		if exists {
			c.byID.remove(r.ID)
		}
		return
	}
	overrides, _ := c.configs.get("topic/" + name)
	t := &Topic{ID: r.ID, Name: name, Internal: r.Internal, Partitions: slots[:r.Partitions:r.Partitions], Overrides: overrides}
	t.Config = c.topicConfig(overrides)
	c.byName.set(name, t)
	c.byID.set(r.ID, t)
}

// Delta is what a subscriber has to look at between two images.
type Delta struct {
	Changed []*Topic // new topics and those of which anything changed, as of the new image
	Deleted []*Topic // as of the old image; a topic that was deleted and created again is in both
	Config  bool     // this broker's settings changed
}

// DeltaOf compares two images; it costs what changed, not what exists. old may be nil.
func DeltaOf(old, next *Image) Delta {
	if old == nil {
		return Delta{Changed: next.Topics(), Config: true}
	}
	d := Delta{Config: old.broker != next.broker}
	for n := range next.byID.shards {
		was, is := old.byID.shards[n], next.byID.shards[n]
		if !next.byID.changed(&old.byID, n) {
			continue
		}
		for id, t := range is {
			if was[id] != t {
				d.Changed = append(d.Changed, t)
			}
		}
		for id, t := range was {
			if _, ok := is[id]; !ok {
				d.Deleted = append(d.Deleted, t)
			}
		}
	}
	byName := func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(d.Changed, byName)
	slices.SortFunc(d.Deleted, byName)
	return d
}
