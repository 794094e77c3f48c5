package replica

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// LogState is what a follower must know of its own log. Epochs is not modified.
type LogState struct {
	LogStart      base.Offset // of the partition (DeleteRecords, retention)
	LocalStart    base.Offset // first offset that is kept here
	End           base.Offset // exclusive; everything below is on stable storage
	HighWatermark base.Offset
	Epochs        []base.EpochStart
}

// Follower is one replica that follows, across leaders and epochs. It begins with the log as it is and sees every change of it
// but trims. What a step says must be written and synced before the next fetch is sent: its offset acknowledges.
type Follower struct {
	epoch base.LeaderEpoch // of the leader that it follows
	log   LogState
}

// Position is what a fetch says about the follower's log, and what its response is an answer to.
type Position struct {
	Epoch     base.LeaderEpoch // the leader's, as the follower knows it
	Offset    base.Offset      // the log end
	LastEpoch base.LeaderEpoch // of the last record, -1 for none (KIP-595)
}

// Response is a leader's answer about one partition.
type Response struct {
	To            Position         // what was fetched from
	Err           error            // a kerr error; the rest is then void, but for LogStart where it is known
	Diverging     *base.EpochStart // the largest common epoch and its end at the leader
	Records       []byte
	HighWatermark base.Offset
	LogStart      base.Offset
}

// Step is what a response makes the follower do, in this order. Err excludes everything else.
type Step struct {
	Stale     bool // the response is to another position: there is nothing to do
	StartOver bool // the leader does not have the next offset in its hot log any more, or nothing kept here is its: see Restart
	Err       error

	Truncate      bool
	TruncateTo    base.Offset // the new log end, where an epoch ended
	Batches       []record.Batch
	HighWatermark base.Offset
	LogStart      base.Offset
	Moved         bool // the high watermark or the log start have moved
}

// NewFollower follows the leader of epoch with the log as it is.
func NewFollower(epoch base.LeaderEpoch, log LogState) *Follower {
	return &Follower{epoch: epoch, log: log}
}

// SetEpoch follows the leader of a later epoch: responses to earlier fetches become stale. The log is not touched: the leader
// says where it diverges (I2). It reports whether the epoch is later.
func (f *Follower) SetEpoch(epoch base.LeaderEpoch) bool {
	if epoch <= f.epoch {
		return false
	}
	f.epoch = epoch
	return true
}

// Position is what to fetch next.
func (f *Follower) Position() Position {
	return Position{f.epoch, f.log.End, lastEpoch(f.log.Epochs, f.log.End)}
}

// Log is the state of the log after everything that was stepped through.
func (f *Follower) Log() LogState { return f.log }

// Step takes a response. A response is to one position, and one to another is dropped: an earlier epoch's would bring back
// what the new leader has cut off, and an old diverging epoch would cut off what was acknowledged since.
func (f *Follower) Step(r Response) Step {
	s := Step{HighWatermark: f.log.HighWatermark, LogStart: f.log.LogStart}
	switch {
	case r.To != f.Position():
		s.Stale = true
	case errors.Is(r.Err, kerr.OffsetMovedToTieredStorage), errors.Is(r.Err, kerr.OffsetOutOfRange):
		s.StartOver = true
	case r.Err != nil:
		s.Err = r.Err
	case r.Diverging != nil:
		f.diverge(&s, *r.Diverging)
	default:
		f.append(&s, &r)
	}
	return s
}

// diverge truncates. The high watermark of the response says nothing: the logs differ.
func (f *Follower) diverge(s *Step, d base.EpochStart) {
	to := TruncationPoint(f.log.Epochs, f.log.End, d)
	switch {
	case to < f.log.LocalStart:
		// What is not kept here was trimmed because it is tiered; but what is tiered there came from this leader's line, and what is
		// kept is another's: none of it counts, and the log goes on behind what is tiered.
		f.log.End, f.log.Epochs, f.log.HighWatermark = to, TruncateEpochs(f.log.Epochs, to), min(f.log.HighWatermark, to)
		s.StartOver = true
		return
	case to == f.log.End:
		s.Err = fmt.Errorf("leader's epoch %d ended at %d, which cuts nothing off a log of %d: %w", d.Epoch, d.Start, f.log.End, kerr.InvalidRecord)
		return
	}
	f.log.End = to
	f.log.Epochs = TruncateEpochs(f.log.Epochs, to)
	if f.log.HighWatermark > to { // only after an unclean election
		f.log.HighWatermark, s.Moved = to, true
	}
	s.Truncate, s.TruncateTo, s.HighWatermark = true, to, f.log.HighWatermark
}

// append checks the batches and moves the high watermark, which a new leader's may lag behind: it does not go back.
func (f *Follower) append(s *Step, r *Response) {
	batches, err := f.split(r.Records)
	if err != nil {
		s.Err = err
		return
	}
	for _, b := range batches {
		f.log.Epochs = AssignEpoch(f.log.Epochs, b.LeaderEpoch(), b.BaseOffset())
		f.log.End = b.NextOffset()
	}
	highWater := max(f.log.HighWatermark, min(r.HighWatermark, f.log.End))
	logStart := max(f.log.LogStart, min(r.LogStart, highWater))
	s.Moved = highWater != f.log.HighWatermark || logStart != f.log.LogStart
	f.log.HighWatermark, f.log.LogStart = highWater, logStart
	s.Batches, s.HighWatermark, s.LogStart = batches, highWater, logStart
}

// split cuts the records of a response into batches that continue the log: CRC, dense offsets, leader epochs that do not fall
// and are not above the leader's. The beginning of a batch at the end, cut off by a byte limit, is left for the next fetch.
func (f *Follower) split(records []byte) ([]record.Batch, error) {
	var out []record.Batch
	end, epoch := f.log.End, lastEpoch(f.log.Epochs, f.log.End)
	for rest := records; len(rest) > 0; {
		b, tail, err := record.Split(rest)
		if errors.Is(err, record.ErrIncomplete) && len(out) > 0 {
			break
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return nil, fmt.Errorf("batch at offset %d of a fetch: %w: %w", end, kerr.CorruptMessage, err)
		}
		switch e := b.LeaderEpoch(); {
		case b.BaseOffset() != end || b.LastOffset() < end:
			return nil, fmt.Errorf("batch [%d, %d) of a fetch from %d: %w", b.BaseOffset(), b.NextOffset(), end, kerr.InvalidRecord)
		case e < max(epoch, 0) || e > f.epoch:
			return nil, fmt.Errorf("batch of epoch %d at offset %d, after epoch %d in a fetch of epoch %d: %w", e, end, epoch, f.epoch, kerr.InvalidRecord)
		default:
			out = append(out, b)
			end, epoch, rest = b.NextOffset(), e, tail
		}
	}
	return out, nil
}

// Restart goes on with an empty local log at the end of the tiered range, or at the partition's log start where that is later;
// its epochs are those of what is tiered. It is refused where that would take back what a fetch has acknowledged.
func (f *Follower) Restart(log LogState) error {
	before := *f
	if log.End < f.log.End {
		return fmt.Errorf("start over at %d would drop records up to %d: %w", log.End, f.log.End, kerr.OffsetOutOfRange)
	}
	f.log = log
	if f.Position() == before.Position() { // the leader would only answer the same again
		*f = before
		return fmt.Errorf("start over at %d, where the log ends already: %w", log.End, kerr.OffsetOutOfRange)
	}
	return nil
}
