package ingest

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// answer ends one part of an append.
type answer struct {
	pd  *pending
	req int
	err error
}

// settle gives answers. No lock is held.
func (g *Ingest) settle(answers []answer) {
	for _, a := range answers {
		if !a.pd.receipt.settle(a.req, a.err) {
			continue
		}
		g.pipe.answered(a.pd)
		if a.pd.after != nil {
			a.pd.after()
		}
	}
}

// lead makes the partition serve under the image's leader epoch, or takes over what changed of it.
func (p *Partition) lead(state *metadata.Partition, topic *metadata.Topic, live replica.Live) {
	p.mu.Lock()
	changed := p.cfg.Swap(topic.Config) != topic.Config
	answers := p.leadLocked(state, live, changed)
	p.mu.Unlock()
	p.g.settle(answers)
}

func (p *Partition) leadLocked(state *metadata.Partition, live replica.Live, changed bool) (answers []answer) {
	m := &p.mu
	if state.Rev < m.rev {
		return nil
	}
	m.rev, m.tp, m.topicID = state.Rev, state.TP, state.TopicID
	newer := m.leader == nil || m.state.LeaderEpoch != state.LeaderEpoch
	if changed || newer { // it may be tiered, or retained, another way
		p.g.work.add(p)
		if len(m.sealed) > 0 {
			p.g.work.addReady(p)
		}
	}
	s := stateOf(state, p.minInSync())
	switch {
	case m.damaged:
	case !newer:
		m.state = *state
		answers = p.carryOutLocked(m.leader.SetLive(live)) // first: who is fenced leaves the ISR for that
		return append(answers, p.carryOutLocked(m.leader.Update(s))...)
	default:
		answers = p.resignLocked(kerr.NotLeaderForPartition)
		m.state, m.err = *state, nil
		if m.end < m.tieredEnd {
			p.skipToTieredLocked()
		}
		p.committedLocked(min(m.tieredEnd, m.durable)) // what is tiered was committed, and a leader has it
		if state.LeaderEpoch > m.epoch {               // it starts at the log end (KIP-101)
			m.epoch = state.LeaderEpoch
			m.epochs = replica.AssignEpoch(m.epochs, m.epoch, m.end)
			m.unsaved = true
		}
		m.leader = replica.NewLeader(replica.LeaderStart{
			ID: p.g.opts.Broker, State: s, Live: live, LagMax: p.g.opts.ReplicaLagMax,
			End: m.end, Synced: m.durable, HighWatermark: m.highWater,
		}, p.g.clock.Now())
		p.startAtRootLocked()
		return append(answers, p.carryOutLocked(m.leader.Start())...)
	}
	return nil
}

// resignLocked ends a leadership: what waits for the high watermark is answered err, followers ask again and learn it.
func (p *Partition) resignLocked(err error) (answers []answer) {
	m := &p.mu
	if m.leader == nil {
		return nil
	}
	p.lowMovedLocked()
	answers = p.answersLocked(m.leader.Resign(err))
	m.leader = nil
	for feed := range m.feeds {
		feed.mark(p, true)
	}
	clear(m.feeds)
	return answers
}

// carryOutLocked does what the leader's state machine wants.
func (p *Partition) carryOutLocked(e replica.Effects) []answer {
	p.lowMovedLocked()
	if e.Advanced {
		p.committedLocked(e.HighWatermark)
		p.startAtRootLocked()
		for feed := range p.mu.feeds {
			feed.mark(p, p.g.opts.EagerHighWatermark)
		}
	}
	if e.Proposal != nil {
		p.g.isr.push(p, e.Proposal)
	}
	return p.answersLocked(e.Done)
}

func (p *Partition) answersLocked(done []replica.Done) (answers []answer) {
	for _, d := range done {
		a, ok := p.mu.awaiting[d.Token]
		if !ok {
			continue
		}
		delete(p.mu.awaiting, d.Token)
		a.err = d.Err
		if d.Err != nil {
			a.err = p.wrap(d.Err)
		}
		answers = append(answers, a)
	}
	return answers
}

// synced notes that a part of an append is on this broker's stable storage: it may be visible now, and answered, or waits for the
// followers.
func (p *Partition) synced(pd *pending, pt *part, b record.Batch) []answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	var answers []answer
	if !pt.failed && !pt.duplicate && pt.cuts == m.cuts { // else it was truncated meanwhile
		m.durable = max(m.durable, pt.end)
		if m.leader == pt.leader || p.g.opts.EagerHighWatermark { // else a follower's batches behind it are not in the tail
			p.tailLocked(b)
		}
		answers = p.durableLocked()
	}
	switch {
	case pt.failed || !pd.all || pt.end <= m.highWater && pt.cuts == m.cuts:
		return append(answers, answer{pd: pd, req: pt.req})
	case m.leader == nil || m.leader != pt.leader:
		return append(answers, answer{pd, pt.req, p.wrap(kerr.NotLeaderForPartition)})
	}
	m.tokens++
	m.awaiting[m.tokens] = answer{pd: pd, req: pt.req}
	return append(answers, p.carryOutLocked(m.leader.Await(m.tokens, pt.end, pd.after != nil))...)
}

// durableLocked tells followers and the leader's state machine how far the log is synced.
func (p *Partition) durableLocked() []answer {
	m := &p.mu
	if m.leader == nil {
		return nil
	}
	for feed := range m.feeds {
		feed.mark(p, true)
	}
	return p.carryOutLocked(m.leader.Synced(m.durable))
}

// tailLocked puts a synced batch into the tail, which has no gaps.
func (p *Partition) tailLocked(b record.Batch) {
	q := &p.mu.tail
	if end, ok := q.end(); ok && end != b.BaseOffset() {
		if end > b.BaseOffset() {
			return // from before a change of leaders
		}
		*q = batchQueue{}
	}
	q.push(b)
}

// liveOf is every broker that is not fenced.
func liveOf(image *metadata.Image) replica.Live {
	live := replica.Live{}
	for _, b := range image.Brokers() {
		live[b.ID] = replica.Broker{Epoch: b.Epoch, Full: b.Full}
	}
	return live
}

// step tells the leader's state machine something, where this broker leads, and carries out what follows.
func (p *Partition) step(what func(l *replica.Leader) replica.Effects) {
	p.mu.Lock()
	var answers []answer
	if p.mu.leader != nil {
		answers = p.carryOutLocked(what(p.mu.leader))
	}
	p.mu.Unlock()
	p.g.settle(answers)
}

func (p *Partition) readableLocked() bool {
	if p.mu.leader == nil {
		return false
	}
	_, ok := p.mu.leader.Readable()
	return ok
}

// Log position of a follower's fetch, and of its answer.
type (
	// FollowerFetch is what a follower says of its log (KIP-595, KIP-903).
	FollowerFetch struct {
		Follower     base.BrokerID
		BrokerEpoch  int64
		CurrentEpoch base.LeaderEpoch
		Offset       base.Offset
		LastEpoch    base.LeaderEpoch // of its last record, -1 for none
		LogStart     base.Offset      // of its log
	}
	// FollowerView is what a leader answers to it.
	FollowerView struct {
		Diverging               *base.EpochStart
		HighWatermark, LogStart base.Offset
		Durable                 base.Offset // it may read up to here
	}
)

// Fetched counts a follower's fetch. kerr.OffsetMovedToTieredStorage where the leader does not have the offset in its hot log
// any more: LogStart is then where a follower may start over that finds nothing tiered; kerr.OffsetOutOfRange, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.StaleBrokerEpoch,
// kerr.NotLeaderForPartition.
func (p *Partition) Fetched(f FollowerFetch) (FollowerView, error) {
	p.mu.Lock()
	v, answers, err := p.fetchedLocked(f)
	if err != nil {
		err = p.wrap(err)
	}
	p.mu.Unlock()
	p.g.settle(answers)
	if errors.Is(err, kerr.OffsetMovedToTieredStorage) {
		v.LogStart = p.BatchStart(v.LogStart)
	}
	return v, err
}

// BatchStart is the offset, or where it lies within a hot batch, that one's base offset: a follower that starts over at a log start
// offset must go on with a whole batch. Where the bucket does not count (hotOnly) it is in what is hot: the log start offset follows soon.
func (p *Partition) BatchStart(off base.Offset) base.Offset {
	p.mu.Lock()
	upTo := p.mu.durable
	if hotOnly(p.Config()) {
		off = max(off, p.mu.hotStart)
	}
	p.mu.Unlock()
	bs, err := p.g.store.Read(p.log, off, upTo, 1)
	if err != nil || len(bs) == 0 { // it is asked again when it fetches there
		return off
	}
	return min(off, bs[0].BaseOffset())
}

func (p *Partition) fetchedLocked(f FollowerFetch) (v FollowerView, answers []answer, err error) {
	m := &p.mu
	if m.err != nil {
		return v, nil, m.err
	}
	v = FollowerView{HighWatermark: m.highWater, LogStart: m.logStart, Durable: m.durable}
	if f.CurrentEpoch != m.epoch {
		if f.CurrentEpoch < m.epoch {
			return v, nil, kerr.FencedLeaderEpoch
		}
		return v, nil, kerr.UnknownLeaderEpoch
	}
	if v.Diverging, err = replica.Diverging(m.epochs, m.epoch, m.end, f.Offset, f.LastEpoch); err != nil || v.Diverging != nil {
		return v, nil, err
	}
	served := m.hotStart
	if start, ok := m.tail.start(); ok {
		served = min(served, start)
	}
	if f.Offset < served {
		return v, nil, kerr.OffsetMovedToTieredStorage
	}
	e, err := m.leader.Fetched(replica.Fetched{
		Follower: f.Follower, BrokerEpoch: f.BrokerEpoch, Epoch: f.CurrentEpoch, Offset: f.Offset, LogStart: f.LogStart, LeaderEnd: m.end,
	}, p.g.clock.Now())
	answers = p.carryOutLocked(e)
	v.HighWatermark = m.highWater
	return v, answers, err
}

// ReadReplica is ReadHot for a follower: up to what is synced, visible or not.
func (p *Partition) ReadReplica(from base.Offset, maxBytes int) ([]record.Batch, error) {
	p.mu.Lock()
	upTo := p.mu.durable
	p.mu.Unlock()
	bs, _, err := p.readUpTo(p.g.store.Read, from, upTo, maxBytes)
	p.g.metrics.replicatedOut.Add(context.Background(), sizeOf(bs))
	return bs, err
}

// Moved is why a follower was not given what comes at an offset: kerr.OffsetMovedToTieredStorage where that is trimmed, else
// kerr.KafkaStorageError: then something is missing here, and the follower must not start over behind it.
func (p *Partition) Moved(off base.Offset) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off < p.mu.hotStart {
		return kerr.OffsetMovedToTieredStorage
	}
	p.g.log.Error("stored records are missing", slog.String("partition", p.mu.tp.String()), slog.Int64("offset", int64(off)))
	return kerr.KafkaStorageError
}

// Offsets are the high watermark and the log start offset, as a follower is told them whose position was compared in a leader epoch,
// and how far it may read; the error is what it is answered where this broker does not lead the partition, or leads it in another
// epoch: then its log may be another one at that position.
func (p *Partition) Offsets(under base.LeaderEpoch) (highWater, logStart, durable base.Offset, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err = p.errLocked(); err == nil && under != p.mu.epoch {
		err = p.wrap(kerr.FencedLeaderEpoch)
	}
	return p.mu.highWater, p.mu.logStart, p.mu.durable, err
}
