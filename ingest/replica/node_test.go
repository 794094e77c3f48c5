package replica

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// rec is one record of a log; its offset is its index.
type rec struct {
	epoch base.LeaderEpoch
	value uint64
	batch record.Batch // set at the first record of a batch
}

// op is a change of a log that is not synced yet: a truncation, or an append.
type op struct {
	truncate bool
	to       int
	recs     []rec
}

func (o op) apply(log []rec) []rec {
	if o.truncate {
		return slices.Clip(log[:min(o.to, len(log))])
	}
	return append(slices.Clip(log), o.recs...)
}

// node is a broker: what is under memory is lost in a crash.
type node struct {
	c           *cluster
	id          base.BrokerID
	up          bool
	wiped       bool  // its disk was lost since it registered
	disks       int   // that it has lost
	brokerEpoch int64 // of its registration
	durable     []rec
	durableHW   base.Offset // as checkpointed with a sync

	memory
}

type memory struct {
	log      []rec
	ops      []op // of log, not in durable
	epochs   []base.EpochStart
	hw       base.Offset
	seen     int // images
	leader   *Leader
	follower *Follower
	leaderID base.BrokerID // that the follower follows
}

// start comes up with what the disk has and registers.
func (n *node) start() {
	n.up = true
	n.memory = memory{log: n.durable, hw: min(n.durableHW, base.Offset(len(n.durable))), seen: -1}
	for i, r := range n.log {
		n.epochs = AssignEpoch(n.epochs, r.epoch, base.Offset(i))
	}
	n.brokerEpoch = n.c.ctl.register(n.id, n.wiped)
	// NB: an image older than the registration would make it lead the epoch in which it crashed, without what it lost.
	n.seen = len(n.c.ctl.images) - 2
	n.wiped = false
}

// crash keeps the first kept of the changes that are not synced.
func (n *node) crash(kept int) {
	if n.leader != nil {
		n.done(n.leader.Resign(kerr.NotLeaderForPartition)) // nobody is told
	}
	for _, o := range n.ops[:kept] {
		n.durable = o.apply(n.durable)
	}
	n.up = false
	n.memory = memory{}
}

func (n *node) wipe() {
	n.crash(0)
	n.wiped, n.durable, n.durableHW = true, nil, 0
	n.disks++
}

// syncedEnd is how much of the log is on stable storage.
func (n *node) syncedEnd() base.Offset {
	end := len(n.durable)
	for _, o := range n.ops {
		if o.truncate {
			end = min(end, o.to)
		}
	}
	return base.Offset(end)
}

// sync makes the first count changes durable.
func (n *node) sync(count int) {
	for _, o := range n.ops[:count] {
		n.durable = o.apply(n.durable)
	}
	n.ops = slices.Clone(n.ops[count:])
	n.durableHW = min(n.hw, n.syncedEnd())
	if n.leader != nil {
		n.effects(n.leader.Synced(n.syncedEnd()))
	}
}

func (n *node) do(o op) {
	n.ops = append(n.ops, o)
	n.log = o.apply(n.log)
}

// see takes over an image.
func (n *node) see(i int) {
	if i <= n.seen {
		return
	}
	img := n.c.ctl.images[i]
	n.seen = i
	switch {
	case n.leader != nil && n.leader.state.Epoch == img.state.Epoch:
		n.effects(n.leader.SetLive(img.live))
		n.effects(n.leader.Update(img.state))
		return
	case n.follower != nil && n.follower.epoch == img.state.Epoch:
		return
	}
	if n.leader != nil {
		n.done(n.leader.Resign(kerr.NotLeaderForPartition))
		n.leader = nil
	}
	if img.leader == n.id {
		n.lead(img)
		return
	}
	n.leaderID = img.leader
	if n.follower == nil {
		n.follower = NewFollower(img.state.Epoch, LogState{End: base.Offset(len(n.log)), HighWatermark: n.hw, Epochs: n.epochs})
	} else {
		n.follower.SetEpoch(img.state.Epoch)
	}
}

func (n *node) lead(img image) {
	end := base.Offset(len(n.log))
	n.follower = nil
	n.epochs = AssignEpoch(n.epochs, img.state.Epoch, end)
	n.leader = NewLeader(LeaderStart{
		ID: n.id, State: img.state, Live: img.live, LagMax: lagMax,
		End: end, Synced: n.syncedEnd(), HighWatermark: min(n.hw, n.syncedEnd()),
	}, n.c.now)
	n.effects(n.leader.Start())
}

const lagMax = 30 * time.Second

// append appends a batch of count records with acks=all.
func (n *node) append(count int) error {
	if err := n.leader.CanAppend(true); err != nil {
		return err
	}
	first := base.Offset(len(n.log))
	recs := make([]rec, count)
	rows := make([]record.Record, count)
	for i := range recs {
		n.c.lastValue++
		recs[i] = rec{epoch: n.leader.state.Epoch, value: n.c.lastValue}
		rows[i] = record.Record{Offset: first + base.Offset(i), Value: binary.BigEndian.AppendUint64(nil, n.c.lastValue)}
	}
	b, err := record.Build(record.BuildHeader{LeaderEpoch: n.leader.state.Epoch, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, rows)
	if err != nil {
		panic(err)
	}
	recs[0].batch = b
	n.do(op{recs: recs})
	n.c.appended(n, int(first))
	n.leader.Appended(base.Offset(len(n.log)), n.c.now)
	token := Token(n.c.lastValue)
	n.c.waiting[token] = recs[count-1]
	n.effects(n.leader.Await(token, base.Offset(len(n.log)), false))
	return nil
}

// effects does what a Leader wants.
func (n *node) effects(e Effects) {
	if e.Proposal != nil {
		n.c.send(message{from: n.id, proposal: e.Proposal})
	}
	if e.HighWatermark < n.hw && e.Advanced {
		n.c.fail("high watermark of %d fell from %d to %d in an epoch", n.id, n.hw, e.HighWatermark)
	}
	if e.Advanced {
		n.hw = e.HighWatermark
		n.c.exposed(n, n.hw)
	}
	n.done(e.Done)
}

func (n *node) done(done []Done) {
	for _, d := range done {
		if d.Err == nil {
			n.c.acked(n, n.c.waiting[d.Token])
		} else {
			n.c.note("append %d of broker %d: %s", d.Token, n.id, code(d.Err))
		}
		delete(n.c.waiting, d.Token)
	}
}

// timeOut gives up waiting for the answer to the proposal in flight. The write is repeated too, as a client of the store may.
func (n *node) timeOut() {
	if p := n.leader.Pending(); p != nil {
		n.c.send(message{from: n.id, proposal: p})
		n.effects(n.leader.Unknown(p.Rev))
	}
}

// fetch sends a follower's fetch; what it says must be synced.
func (n *node) fetch() bool {
	if n.follower == nil || n.leaderID < 0 || len(n.ops) > 0 {
		return false
	}
	p := n.follower.Position()
	n.c.send(message{from: n.id, to: n.leaderID, fetch: &p, brokerEpoch: n.brokerEpoch})
	return true
}

// serve answers a follower's fetch as the read path does.
func (n *node) serve(m message, maxRecords int) Response {
	p := *m.fetch
	r := Response{To: p, HighWatermark: -1, LogStart: -1}
	l := n.leader
	end := base.Offset(len(n.log))
	switch {
	case l == nil:
		r.Err = kerr.NotLeaderForPartition
	case p.Epoch < l.state.Epoch:
		r.Err = kerr.FencedLeaderEpoch
	case p.Epoch > l.state.Epoch:
		r.Err = kerr.UnknownLeaderEpoch
	default:
		r.Diverging, r.Err = Diverging(n.epochs, l.state.Epoch, end, p.Offset, p.LastEpoch)
	}
	if r.Err != nil || r.Diverging != nil {
		return r
	}
	for i := int(p.Offset); i < len(n.log) && i < int(p.Offset)+maxRecords; i++ {
		r.Records = append(r.Records, n.log[i].batch...)
	}
	e, err := l.Fetched(Fetched{m.from, m.brokerEpoch, p.Epoch, p.Offset, 0, end}, n.c.now)
	n.effects(e)
	if err != nil {
		return Response{To: p, Err: err}
	}
	r.HighWatermark, r.LogStart = l.HighWatermark(), 0
	return r
}

// receive takes a leader's answer.
func (n *node) receive(r Response) {
	if n.follower == nil || len(n.ops) > 0 {
		return // a second answer while the first is being synced: the fetcher has one fetch under way
	}
	s := n.follower.Step(r)
	if s.Err != nil || s.StartOver {
		n.c.note("broker %d: %s%s", n.id, code(s.Err), map[bool]string{true: "start over"}[s.StartOver])
		return
	}
	if s.Stale {
		return
	}
	if s.Truncate {
		n.c.truncated(n, s.TruncateTo)
		n.do(op{truncate: true, to: int(s.TruncateTo)})
	}
	for _, b := range s.Batches {
		at := len(n.log)
		n.do(op{recs: unpack(b)})
		n.c.appended(n, at)
	}
	n.epochs = n.follower.Log().Epochs
	if s.HighWatermark > n.hw {
		n.hw = s.HighWatermark
		n.c.exposed(n, n.hw)
	}
	n.hw = s.HighWatermark
}

func unpack(b record.Batch) []rec {
	var out []rec
	err := b.Each(func(r record.Record) bool {
		out = append(out, rec{epoch: b.LeaderEpoch(), value: binary.BigEndian.Uint64(r.Value)})
		return true
	})
	if err != nil {
		panic(err)
	}
	out[0].batch = b
	return out
}

func code(err error) string {
	if err == nil {
		return ""
	}
	for e := range kerrs {
		if strings.Contains(err.Error(), kerrs[e].Message) {
			return kerrs[e].Message
		}
	}
	return err.Error()
}

var kerrs = []*kerr.Error{
	kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas, kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
	kerr.StaleBrokerEpoch, kerr.OffsetOutOfRange, kerr.InvalidRecord, kerr.CorruptMessage, kerr.KafkaStorageError,
}

// String is the whole state of the broker in one line: "|" stands before the high watermark's offset, "!" after what is synced.
func (n *node) String() string {
	var b strings.Builder
	role := "down"
	switch {
	case n.leader != nil:
		role = fmt.Sprintf("leader e%d", n.leader.state.Epoch)
	case n.follower != nil:
		role = fmt.Sprintf("follower e%d of %d", n.follower.epoch, n.leaderID)
	case n.up:
		role = "up"
	}
	log := n.log
	if !n.up {
		log = n.durable
	}
	fmt.Fprintf(&b, "%d %s:", n.id, role)
	for i, r := range log {
		if n.up && base.Offset(i) == n.hw {
			b.WriteString(" |")
		}
		fmt.Fprintf(&b, " %d@%d", r.value, r.epoch)
		if n.up && base.Offset(i) >= n.syncedEnd() {
			b.WriteString("!")
		}
	}
	if n.up && n.hw == base.Offset(len(log)) {
		b.WriteString(" |")
	}
	if l := n.leader; l != nil {
		fmt.Fprintf(&b, "  isr=%v", l.state.ISR)
		if l.pending != nil {
			fmt.Fprintf(&b, " proposed=%v", l.pending.ISR)
		}
		for _, f := range l.followers {
			fmt.Fprintf(&b, " %d:%d", f.id, f.end)
			if !l.caughtUp(&f) {
				b.WriteString("(lags)")
			}
		}
		if _, ok := l.Readable(); !ok {
			b.WriteString(" unreadable")
		}
	}
	return b.String()
}
