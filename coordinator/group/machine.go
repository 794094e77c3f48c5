package group

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// machine is the state of one partition of __consumer_offsets: its groups and their offsets. It is a runtime.Machine:
// pure, single-threaded, told the time by its Effects.
type machine struct {
	opts      *Options
	inst      *instruments
	log       *slog.Logger
	partition int32

	groups  map[string]*classicGroup
	offsets offsetTable
	open    openOffsets
}

var _ runtime.Machine = (*machine)(nil)

func newMachine(o *Options, inst *instruments, partition int32) *machine {
	return &machine{
		opts: o, inst: inst, partition: partition,
		log:     o.Logger.With(slog.Int("partition", int(partition))),
		groups:  map[string]*classicGroup{},
		offsets: offsetTable{},
		open:    openOffsets{byProducer: map[base.ProducerID]offsetTable{}, count: map[offsetKey]int{}},
	}
}

// live reports whether g is still the group of its id: timers and settled appends may come after it was deleted.
func (m *machine) live(g *classicGroup) bool { return m.groups[g.id] == g }

// create makes a group in memory. It rests on the records of this step: should they be lost, the group goes and whoever
// has joined it meanwhile is told.
func (m *machine) create(fx *runtime.Effects, id string) *classicGroup {
	g := newClassicGroup(id, fx.Now.UnixMilli())
	m.groups[id] = g
	fx.OnUndo(func() {
		if m.live(g) {
			delete(m.groups, id)
		}
	})
	fx.OnSettled(func(next *runtime.Effects, err error) {
		if err != nil {
			m.log.Warn("group not created", slog.String("group", id), slog.Any("error", err))
			m.failWaiting(next, g, codeOf(err))
		}
	})
	return g
}

// drop deletes a group from memory; the caller has appended its tombstones. Its timers find it gone.
func (m *machine) drop(fx *runtime.Effects, g *classicGroup) {
	delete(m.groups, g.id)
	fx.OnUndo(func() { m.groups[g.id] = g })
}

// failWaiting answers everyone who is parked in the group.
func (m *machine) failWaiting(fx *runtime.Effects, g *classicGroup, code int16) {
	for _, mem := range g.inOrder() {
		if w := g.park(mem, waiting{}); w.is() {
			fx.ReplyNow(w.promise, joinFailure(w.version, mem.id, code))
		}
		m.answerSync(fx, mem, nil, nil, nil, code)
	}
}

// Loaded implements runtime.Machine: members' sessions start anew, as nobody knows when they were last seen.
func (m *machine) Loaded(fx *runtime.Effects) {
	members := 0
	for _, id := range sortedKeys(m.groups) {
		g := m.groups[id]
		members += len(g.members)
		for _, mem := range g.inOrder() {
			m.renew(fx, g, mem, mem.session)
		}
		if len(g.members) > m.opts.Config().MaxSize {
			m.prepareRebalance(fx, g, "loaded group is larger than group.max.size")
		}
	}
	m.scheduleExpiry(fx)
	m.log.Info("groups loaded", slog.Int("groups", len(m.groups)), slog.Int("members", members),
		slog.Int("offsets", m.offsets.len()))
}

// Replay implements runtime.Machine.
func (m *machine) Replay(b record.Batch) error {
	if b.IsControl() {
		return m.replayMarker(b)
	}
	producer := base.NoProducerID
	if b.IsTransactional() {
		producer = b.ProducerID()
	}
	var bad error
	err := b.Each(func(r record.Record) bool {
		if bad = m.replayRecord(producer, r); bad != nil {
			bad = base.MarkCorruption(fmt.Errorf("group record at offset %d of partition %d: %w", r.Offset, m.partition, bad))
		}
		return bad == nil
	})
	if err != nil {
		return fmt.Errorf("group records from offset %d of partition %d: %w", b.BaseOffset(), m.partition, err)
	}
	return bad
}

// replayRecord applies one record. Types that this coordinator does not have (KIP-848, share and streams groups) are
// left alone: they stay in the log for the one that does.
func (m *machine) replayRecord(producer base.ProducerID, r record.Record) error {
	k, err := parseKey(r.Key)
	if err != nil {
		return err
	}
	switch k.kind {
	case keyOffset:
		return m.replayOffset(producer, k, r)
	case keyGroup:
		if r.Value == nil {
			delete(m.groups, string(k.group))
			return nil
		}
		g, err := parseGroup(string(k.group), r.Value)
		if err != nil {
			return err
		}
		m.groups[g.id] = g
	}
	return nil
}

func (m *machine) replayOffset(producer base.ProducerID, k recordKey, r record.Record) error {
	if r.Value == nil {
		m.offsets.remove(string(k.group), string(k.topic), k.partition)
		m.open.forget(offsetKey{string(k.group), string(k.topic), k.partition})
		return nil
	}
	c, err := parseOffset(r.Value)
	if err != nil {
		return err
	}
	c.logOffset = r.Offset
	if m.groups[string(k.group)] == nil {
		m.groups[string(k.group)] = newClassicGroup(string(k.group), -1)
	}
	if producer != base.NoProducerID {
		m.open.put(producer, offsetKey{string(k.group), string(k.topic), k.partition}, c)
		return nil
	}
	m.offsets.putBytes(k.group, k.topic, k.partition, c)
	return nil
}

// timer keys of this machine.
func sessionKey(group, member string) runtime.TimerKey {
	return runtime.TimerKey{Kind: "session", Group: group, Member: member}
}
func joinKey(group string) runtime.TimerKey { return runtime.TimerKey{Kind: "join", Group: group} }
func syncKey(group string) runtime.TimerKey { return runtime.TimerKey{Kind: "sync", Group: group} }
func expiryKey() runtime.TimerKey           { return runtime.TimerKey{Kind: "expiry"} }

// renew restarts a member's session.
func (m *machine) renew(fx *runtime.Effects, g *classicGroup, mem *member, d time.Duration) {
	id := mem.id
	fx.SetTimer(sessionKey(g.id, id), d, func(fx *runtime.Effects) { m.expireSession(fx, g, id) })
}

func (m *machine) count(fx *runtime.Effects, c counter, n int) {
	fx.OnSettled(func(_ *runtime.Effects, err error) {
		if err == nil {
			c.Add(context.Background(), int64(n))
		}
	})
}
