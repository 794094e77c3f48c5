package replica

import (
	"context"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// ID names a partition on the wire between brokers (KIP-516).
type ID struct {
	Topic     base.TopicID
	Partition int32
}

// Change is what one response does to one partition, in the order of the fields. Epochs is the whole list afterwards.
type Change struct {
	ID            ID
	Epoch         base.LeaderEpoch // that the fetch was made under
	Truncate      bool
	TruncateTo    base.Offset
	Batches       []record.Batch // they share the response's memory, which is used again after Apply
	Epochs        []base.EpochStart
	HighWatermark base.Offset
	LogStart      base.Offset
}

// Log is the broker's logs, as a fetcher writes them.
type Log interface {
	// Apply writes all changes at once and syncs them, where there is something to sync, before it returns: the next fetch
	// acknowledges them. The fetcher lets go of what is refused, since it is ahead of that log.
	Apply(ctx context.Context, changes []Change) (refused []ID)
	// StartOver empties the hot log of a partition, which ended before what the leader still has, and goes on at the end of
	// the tiered range or at leaderStart, whichever is later (-1: the leader did not say). Where that is before acked, up to which
	// fetches have acknowledged records, nothing is dropped: kerr.OffsetOutOfRange. An error is tried again later. It is called for
	// many partitions at once, beside Apply for others.
	StartOver(ctx context.Context, id ID, epoch base.LeaderEpoch, acked, leaderStart base.Offset) (LogState, error)
}

// Throttle is the follower's side of a broker's replication quota (KIP-73). Its methods do not block.
type Throttle interface {
	// Closed is for how long nothing that the quota holds back may be fetched, 0 where all may, and what is closed when that changes.
	Closed(now time.Time) (wait time.Duration, changed <-chan struct{})
	// Holds reports whether the quota holds the replica back while it is closed.
	Holds(id ID) bool
}

// pulled is one partition that a fetcher follows.
type pulled struct {
	id        ID
	follower  *Follower
	notBefore time.Time     // of the next fetch, after an error
	backoff   time.Duration // of the last error, 0 after a success
	level     bool          // it had everything committed when its leader last answered: its next fetch says so, and costs little
	reported  string        // the last error that was logged
	over      *startOver    // while it starts over: it is not fetched, and the follower is for that alone
}

// later puts the next fetch off after an error. It reports whether that is another error than the last one.
func (p *pulled) later(o *Options, now time.Time, err error) (another bool) {
	another = p.backoff == 0 || p.reported != err.Error()
	p.reported = err.Error()
	p.backoff = nextBackoff(p.backoff, o)
	p.notBefore = now.Add(p.backoff)
	return another
}

// nextBackoff doubles from the minimum to the maximum.
func nextBackoff(last time.Duration, o *Options) time.Duration {
	return min(max(2*last, o.BackoffMin), o.BackoffMax)
}

func (p *pulled) change(s *Step) Change {
	return Change{
		ID: p.id, Epoch: p.follower.epoch, Truncate: s.Truncate, TruncateTo: s.TruncateTo, Batches: s.Batches,
		Epochs: p.follower.Log().Epochs, HighWatermark: s.HighWatermark, LogStart: s.LogStart,
	}
}
