package replica

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/invariants"
)

// State is what the leader must know of the partition's key and of the topic's configuration. Its slices are not modified.
type State struct {
	Rev       int64 // KV mod revision of the partition's key
	Epoch     base.LeaderEpoch
	Replicas  []base.BrokerID
	ISR       []base.BrokerID
	ELR       []base.BrokerID // who may be elected from outside the ISR (KIP-966)
	MinInSync int             // min.insync.replicas
}

// Live are the brokers that are not fenced. It is shared and not modified.
type Live map[base.BrokerID]Broker

// Broker is what a leader knows of one.
type Broker struct {
	Epoch int64 // of its registration
	Full  bool  // its disk has no room: it appends nothing
}

// LeaderStart is what a leadership begins with.
type LeaderStart struct {
	ID            base.BrokerID // of this broker
	State         State
	Live          Live
	LagMax        time.Duration // replica.lag.time.max.ms
	End           base.Offset   // of the log; the epoch starts here (KIP-101)
	Synced        base.Offset   // exclusive end of what is on stable storage, <= End
	HighWatermark base.Offset   // as this replica knew it, <= Synced
}

// Leader is one leadership: one partition, one leader epoch. It begins with NewLeader and ends with Resign; a further epoch,
// also of the same broker, is another Leader.
type Leader struct {
	id         base.BrokerID
	state      State
	live       Live
	lagMax     time.Duration
	epochStart base.Offset
	end        base.Offset // appended
	synced     base.Offset // of it, on stable storage
	highWater  base.Offset
	followers  []follower // the replicas but this one, in the order of the assignment
	pending    *Proposal  // in flight (KIP-497)
	unknown    bool       // a write of pending was not answered
	refused    bool       // propose nothing more before the next tick
	waiting    []wait     // ascending by end
	now        time.Time  // the latest that was passed in
}

// follower is Kafka's ReplicaState.
type follower struct {
	id            base.BrokerID
	end           base.Offset // its fetch offset: it has everything below on stable storage; -1 before its first fetch
	logStart      base.Offset // of its log, as it last said; -1 before its first fetch
	brokerEpoch   int64       // of the broker that fetched
	lastCaughtUp  time.Time   // when it last had everything that the leader had; zero: never
	lastFetch     time.Time
	endAtLastRead base.Offset // the leader's end when it answered the last fetch
	dismissed     bool        // it was taken out of the ISR though it is unfenced: it shuts down. Until the next tick
}

// Effects is what one input makes the caller do.
type Effects struct {
	HighWatermark base.Offset // the current one
	Advanced      bool        // it has moved
	Proposal      *Proposal   // to be written; answer with Update, Refused or Unknown
	Done          []Done      // appends to be answered
}

// NewLeader begins a leadership. Followers that are in sync get LagMax from now to show it.
func NewLeader(s LeaderStart, now time.Time) *Leader {
	invariants.Assert(s.HighWatermark <= s.Synced && s.Synced <= s.End, "high watermark %d, synced %d, end %d", s.HighWatermark, s.Synced, s.End)
	l := &Leader{
		id: s.ID, state: s.State, live: s.Live, lagMax: s.LagMax, epochStart: s.End,
		end: s.End, synced: s.Synced, highWater: s.HighWatermark, now: now,
	}
	l.assign(nil)
	return l
}

// Start makes the first effects of a leadership: one that is alone may move its high watermark at once.
func (l *Leader) Start() Effects { return l.effects() }

// assign makes the followers' list that of the assignment. inSync are those that were in sync before.
func (l *Leader) assign(inSync []base.BrokerID) {
	old := l.followers
	l.followers = make([]follower, 0, len(l.state.Replicas))
	for _, id := range l.state.Replicas {
		if id == l.id {
			continue
		}
		f := follower{id: id, end: base.NoOffset, logStart: base.NoOffset, endAtLastRead: base.NoOffset}
		if i := indexOf(old, id); i >= 0 {
			f = old[i]
		}
		if slices.Contains(l.state.ISR, id) && !slices.Contains(inSync, id) {
			// It was in sync when it was added; Kafka would let it drop out again before its next fetch.
			f.lastCaughtUp = l.now
		}
		l.followers = append(l.followers, f)
	}
}

func indexOf(fs []follower, id base.BrokerID) int {
	return slices.IndexFunc(fs, func(f follower) bool { return f.id == id })
}

// CanAppend reports whether an append may start: kerr.NotEnoughReplicas where all replicas are to acknowledge it and too few
// are in sync.
func (l *Leader) CanAppend(acksAll bool) error {
	if acksAll && l.underMin() {
		return fmt.Errorf("%d replicas in sync, %d wanted: %w", len(l.state.ISR), l.minInSync(), kerr.NotEnoughReplicas)
	}
	return nil
}

// Appended notes that the log ends at end. Followers may read it before it is synced. One that had everything until now was
// caught up until now: a quiet partition's fetches need not be counted (Fetched).
func (l *Leader) Appended(end base.Offset, now time.Time) {
	invariants.Assert(end >= l.end, "log end %d after %d", end, l.end)
	l.see(now)
	for i := range l.followers {
		if f := &l.followers[i]; f.end == l.end {
			f.lastCaughtUp = latest(f.lastCaughtUp, l.now)
		}
	}
	l.end = max(l.end, end)
}

// Synced notes that everything below end is on stable storage (I1).
func (l *Leader) Synced(end base.Offset) Effects {
	invariants.Assert(end <= l.end, "synced %d past the log end %d", end, l.end)
	l.synced = max(l.synced, min(end, l.end))
	return l.effects()
}

// Fetched is a follower's fetch that was answered without an error and without a diverging epoch: one that diverges says
// nothing about what the follower has in common with the leader, and must not come here.
type Fetched struct {
	Follower    base.BrokerID
	BrokerEpoch int64            // of the follower's registration
	Epoch       base.LeaderEpoch // the leader epoch that the fetch named
	Offset      base.Offset      // the follower has synced everything below
	LogStart    base.Offset      // of the follower's log
	LeaderEnd   base.Offset      // this log's end when the fetch was read for
}

// Fetched counts a fetch. Of the partitions of an incremental session only those need to be counted that a request names: the
// others have not moved. The error is the partition's answer to a follower that cannot count: not in the assignment, or of an older registration.
func (l *Leader) Fetched(f Fetched, now time.Time) (Effects, error) {
	l.see(now)
	i := indexOf(l.followers, f.Follower)
	switch {
	case f.Epoch != l.state.Epoch:
		code := kerr.FencedLeaderEpoch
		if f.Epoch > l.state.Epoch {
			code = kerr.UnknownLeaderEpoch
		}
		return l.effects(), fmt.Errorf("fetch in epoch %d, current %d: %w", f.Epoch, l.state.Epoch, code)
	case i < 0:
		return l.effects(), fmt.Errorf("broker %d is no replica: %w", f.Follower, kerr.NotLeaderForPartition)
	case f.Offset > f.LeaderEnd:
		return l.effects(), fmt.Errorf("fetch offset %d, log end %d: %w", f.Offset, f.LeaderEnd, kerr.OffsetOutOfRange)
	}
	r := &l.followers[i]
	if f.BrokerEpoch < max(l.live[f.Follower].Epoch, r.brokerEpoch) {
		return l.effects(), fmt.Errorf("broker %d fetched with epoch %d: %w", f.Follower, f.BrokerEpoch, kerr.StaleBrokerEpoch)
	}
	r.fetched(f, l.now)
	return l.effects(), nil
}

// fetched is Replica.updateFetchStateOrThrow. A follower under constant load never reaches the end of a moving log: it counts
// as caught up, at the time of its previous fetch, when it reaches the end that the log had then.
func (r *follower) fetched(f Fetched, now time.Time) {
	switch {
	case f.Offset >= f.LeaderEnd:
		r.lastCaughtUp = latest(r.lastCaughtUp, now)
	case f.Offset >= r.endAtLastRead && r.endAtLastRead >= 0:
		r.lastCaughtUp = latest(r.lastCaughtUp, r.lastFetch)
	}
	r.dismissed = r.dismissed && r.brokerEpoch == f.BrokerEpoch
	r.end, r.logStart, r.brokerEpoch = f.Offset, f.LogStart, f.BrokerEpoch
	r.lastFetch, r.endAtLastRead = now, f.LeaderEnd
}

// Tick looks for followers that lag; call it every LagMax/2 or more often.
func (l *Leader) Tick(now time.Time) Effects {
	l.see(now)
	l.refused = false
	for i := range l.followers {
		l.followers[i].dismissed = false
	}
	shrink := l.shrink()
	e := l.effects()
	if shrink != nil {
		e.Proposal = shrink
	}
	return e
}

// Update takes over a newer state of the partition's key, whoever wrote it, and min.insync.replicas. What is older than the
// state that is known is ignored, as is another epoch's: Resign, or a new Leader, is for that.
func (l *Leader) Update(s State) Effects {
	if s.Epoch != l.state.Epoch || s.Rev < l.state.Rev {
		return l.effects()
	}
	proposed := l.state.ISR
	if l.pending != nil {
		proposed = l.pending.ISR
	}
	if s.Rev > l.state.Rev {
		// The key has changed, so a proposal that compares the old revision was this change, or is void.
		l.pending, l.unknown, l.refused = nil, false, false
	}
	inSync := l.state.ISR
	l.state = s
	l.assign(inSync)
	for i := range l.followers {
		f := &l.followers[i]
		f.dismissed = f.dismissed || slices.Contains(inSync, f.id) && slices.Contains(proposed, f.id) && !slices.Contains(s.ISR, f.id) && l.eligible(f)
	}
	return l.effects()
}

// SetLive takes over which brokers are live.
func (l *Leader) SetLive(live Live) Effects {
	l.live = live
	return l.effects()
}

// Ends are the fetch offsets of the followers in the ISR: each has everything below its own.
func (l *Leader) Ends(yield func(id base.BrokerID, end base.Offset)) {
	for i := range l.followers {
		if f := &l.followers[i]; slices.Contains(l.state.ISR, f.id) {
			yield(f.id, f.end)
		}
	}
}

// LowWatermark is the smallest log start offset of all live replicas, this one's being own (Kafka: Partition.lowWatermarkIfLeader); -1
// while one of them has not fetched yet.
func (l *Leader) LowWatermark(own base.Offset) base.Offset {
	low := own
	for i := range l.followers {
		f := &l.followers[i]
		switch b, live := l.live[f.id]; {
		case !live:
		case f.brokerEpoch != b.Epoch: // what an earlier incarnation said may be lost
			low = base.NoOffset
		default:
			low = min(low, f.logStart)
		}
	}
	return low
}

// AwaitedFrom reports whether the high watermark waits for the follower, or may: whether it is in the maximal ISR or has caught up. A quota
// must not hold it back.
func (l *Leader) AwaitedFrom(id base.BrokerID) bool {
	i := indexOf(l.followers, id)
	return i >= 0 && (l.counts(id) || l.caughtUp(&l.followers[i]))
}

// HighWatermark is the exclusive end of what is committed as far as this leader knows.
func (l *Leader) HighWatermark() base.Offset { return l.highWater }

// Readable is the high watermark to tell a client that asks for the log's end; false while this leader may know of less than
// its predecessor has acknowledged (OFFSET_NOT_AVAILABLE, KIP-207).
func (l *Leader) Readable() (base.Offset, bool) { return l.highWater, l.highWater >= l.epochStart }

// effects moves the high watermark, answers what that completes, and proposes who is to join the ISR.
func (l *Leader) effects() Effects {
	advanced := l.advance()
	return Effects{HighWatermark: l.highWater, Advanced: advanced, Proposal: l.expansion(), Done: l.complete()}
}

// advance is Partition.maybeIncrementLeaderHW: the smallest end over this log, as far as it is synced, and everybody in the
// ISR or about to be. A follower outside that has caught up is waited for too: it could never join a log that moves on.
func (l *Leader) advance() bool {
	if l.underMin() || len(l.state.ELR) > 0 {
		return false // KIP-966: what is committed must be on min.insync.replicas, and on whoever may be elected
	}
	end := l.synced
	for i := range l.followers {
		f := &l.followers[i]
		if l.counts(f.id) || l.caughtUp(f) && l.eligible(f) {
			end = min(end, f.end)
		}
	}
	if end <= l.highWater {
		return false
	}
	l.highWater = end
	return true
}

func (l *Leader) minInSync() int { return max(1, min(l.state.MinInSync, len(l.state.Replicas))) }
func (l *Leader) underMin() bool { return len(l.state.ISR) < l.minInSync() }

func (l *Leader) see(now time.Time) { l.now = latest(l.now, now) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
