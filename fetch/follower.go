package fetch

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// FollowerKey names a partition in a follower's session.
type FollowerKey struct {
	Topic     base.TopicID
	Partition int32
}

// FollowerPartition is one partition that a follower's request names: its position has moved, or it is new in the session.
type FollowerPartition struct {
	FollowerKey
	Offset       base.Offset
	CurrentEpoch base.LeaderEpoch
	LastEpoch    base.LeaderEpoch // of its last record, -1 for none
	LogStart     base.Offset      // of its log
	MaxBytes     int32
}

// FollowerRequest is a Fetch of a replica.
type FollowerRequest struct {
	Follower                      base.BrokerID
	BrokerEpoch                   int64
	SessionID, SessionEpoch       int32
	NewSession                    int32 // the id of a session that is made for this request, positive, random
	MaxWaitMs, MinBytes, MaxBytes int32
	Partitions                    []FollowerPartition
	Forgotten                     []FollowerKey
}

// FollowerResponse answers for one partition.
type FollowerResponse struct {
	FollowerKey
	Err                     error
	Diverging               *base.EpochStart
	HighWatermark, LogStart base.Offset
	Batches                 []record.Batch
	Bytes                   int
}

// followers holds the session of each follower: one, since a broker has one stream from another.
type followers struct {
	mu struct {
		sync.Mutex
		sessions map[base.BrokerID]*followerSession
	}
}

// followerSession is a follower's side of this broker's log: unlike a consumer's session (package kafka) a fetch looks only at
// what the request names and at what has news, so ten thousand quiet partitions cost nothing.
type followerSession struct {
	id    int32
	feed  *ingest.Feed
	mu    sync.Mutex // held for a whole request
	epoch int32      // that the next request must have
	parts map[FollowerKey]*followerPart
	byLog map[*ingest.Partition]*followerPart
	ready []*followerPart // with batches to read, oldest news first

	held    []*followerPart // with batches that the leader's quota holds back
	changed <-chan struct{} // where there are: closed when that quota changes
}

// followerPart is one partition of a session.
type followerPart struct {
	key              FollowerKey
	part             *ingest.Partition
	offset           base.Offset
	epoch            base.LeaderEpoch // in which offset was found to be on this broker's log
	maxBytes         int32
	sent             bool // batches from offset on were sent: the next request that names it says more
	queued           bool // in ready
	held             bool // in held
	toldHigh, toldLo base.Offset
}

// FetchFollower answers a replica. Partitions that have nothing to say are left out. It waits as Fetch does. The error is one of
// the session: kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch.
func (s *Service) FetchFollower(ctx context.Context, r *FollowerRequest) (session int32, out []FollowerResponse, err error) {
	ses, old, err := s.followers.begin(r)
	if err != nil {
		return 0, nil, err
	}
	old.end()
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if r.SessionEpoch > 0 {
		if ses.epoch != r.SessionEpoch {
			return 0, nil, kerr.InvalidFetchSessionEpoch
		}
		if ses.epoch++; ses.epoch == math.MinInt32 {
			ses.epoch = 1
		}
	}
	for _, k := range r.Forgotten {
		ses.forget(k)
	}
	for i := range r.Partitions {
		out = s.position(ses, r, &r.Partitions[i], out)
	}
	bytes := 0
	deadline := s.opts.Clock.Now().Add(time.Duration(max(r.MaxWaitMs, 0)) * time.Millisecond)
	for {
		out, bytes = s.collect(ses, r, out, bytes)
		if len(out) > 0 || !s.awaitNews(ctx, ses, deadline) {
			break
		}
		if ses.feed.Closed() {
			return 0, nil, kerr.FetchSessionIDNotFound
		}
	}
	return ses.id, ses.quiet(out), nil
}

// begin finds the session of a request, or makes one, which replaces the follower's last: that is to be ended.
func (f *followers) begin(r *FollowerRequest) (ses, replaced *followerSession, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.mu.sessions[r.Follower]
	if r.SessionEpoch > 0 {
		if old == nil || old.id != r.SessionID {
			return nil, nil, kerr.FetchSessionIDNotFound
		}
		return old, nil, nil
	}
	ses = &followerSession{
		id: max(1, r.NewSession), epoch: 1, feed: ingest.NewFeed(),
		parts: map[FollowerKey]*followerPart{}, byLog: map[*ingest.Partition]*followerPart{},
	}
	if f.mu.sessions == nil {
		f.mu.sessions = map[base.BrokerID]*followerSession{}
	}
	f.mu.sessions[r.Follower] = ses
	return ses, old, nil
}

// end takes a session off its partitions. A request of it that waits is answered first.
func (ses *followerSession) end() {
	if ses == nil {
		return
	}
	ses.feed.Close()
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for k := range ses.parts {
		ses.forget(k)
	}
}

// position takes over where a follower is, and counts it as a fetch. What has to be said about it at once is added to out.
func (s *Service) position(ses *followerSession, r *FollowerRequest, in *FollowerPartition, out []FollowerResponse) []FollowerResponse {
	refuse := func(err error, logStart base.Offset) []FollowerResponse {
		ses.forget(in.FollowerKey)
		return append(out, FollowerResponse{FollowerKey: in.FollowerKey, Err: err, HighWatermark: -1, LogStart: logStart})
	}
	t, ok := s.opts.Meta.Image().TopicByID(in.Topic)
	if !ok {
		return refuse(kerr.UnknownTopicID, -1)
	}
	p, err := s.opts.Ingest.Partition(base.TopicPartition{Topic: t.Name, Partition: in.Partition})
	if err != nil {
		return refuse(err, -1)
	}
	if int(in.Partition) >= len(t.Partitions) || t.Partitions[in.Partition].Log != p.Log() { // another topic has the name by now
		return refuse(kerr.UnknownTopicID, -1)
	}
	part := ses.parts[in.FollowerKey]
	if part == nil || part.part != p {
		ses.forget(in.FollowerKey)
		part = &followerPart{key: in.FollowerKey, part: p, toldHigh: -1, toldLo: -1}
		ses.parts[in.FollowerKey], ses.byLog[p] = part, part
	}
	ses.feed.Join(p) // before the look, so that nothing in between is missed
	v, err := p.Fetched(ingest.FollowerFetch{
		Follower: r.Follower, BrokerEpoch: r.BrokerEpoch, CurrentEpoch: in.CurrentEpoch,
		Offset: in.Offset, LastEpoch: in.LastEpoch, LogStart: in.LogStart,
	})
	if err != nil {
		return refuse(err, v.LogStart)
	}
	part.offset, part.epoch, part.maxBytes, part.sent = in.Offset, in.CurrentEpoch, in.MaxBytes, false
	if v.Diverging != nil {
		part.sent = true
		return append(out, FollowerResponse{
			FollowerKey: in.FollowerKey, Diverging: v.Diverging, HighWatermark: v.HighWatermark, LogStart: v.LogStart,
		})
	}
	if in.Offset < v.Durable {
		ses.push(part)
	}
	return out
}

// collect reads what has come for the session's partitions, within the request's budget; the first batch may exceed it.
func (s *Service) collect(ses *followerSession, r *FollowerRequest, out []FollowerResponse, bytes int) ([]FollowerResponse, int) {
	s.release(ses)
	for _, p := range ses.feed.Take() {
		if part := ses.byLog[p]; part != nil && !part.sent {
			ses.push(part)
		}
	}
	for len(ses.ready) > 0 && (bytes == 0 || bytes < int(r.MaxBytes)) {
		part := ses.ready[0]
		ses.ready[0] = nil
		ses.ready = ses.ready[1:]
		part.queued = false
		if ses.parts[part.key] != part || part.sent {
			continue
		}
		res, held := s.readFollower(ses, r.Follower, part, min(int(part.maxBytes), int(r.MaxBytes)-bytes))
		if held {
			continue
		}
		if res.Err != nil {
			ses.forget(part.key)
			out = append(out, FollowerResponse{FollowerKey: part.key, Err: res.Err, HighWatermark: -1, LogStart: res.LogStart})
			continue
		}
		if len(res.Batches) == 0 {
			if part.toldHigh != res.HighWatermark || part.toldLo != res.LogStart {
				part.toldHigh, part.toldLo = res.HighWatermark, res.LogStart
				out = append(out, res)
			}
			continue
		}
		bytes += res.Bytes
		part.sent = true
		part.toldHigh, part.toldLo = res.HighWatermark, res.LogStart
		out = append(out, res)
	}
	return out, bytes
}

// readFollower reads what a follower of a partition does not have, unless the leader's quota holds it back.
func (s *Service) readFollower(ses *followerSession, follower base.BrokerID, part *followerPart, maxBytes int) (res FollowerResponse, held bool) {
	res.FollowerKey = part.key
	var durable base.Offset
	res.HighWatermark, res.LogStart, durable, res.Err = part.part.Offsets(part.epoch)
	if res.Err != nil || part.offset >= durable {
		return res, false
	}
	a := s.allow(ses, follower, part, maxBytes)
	if a.held {
		return res, true
	}
	res.Batches, res.Err = part.part.ReadReplica(part.offset, a.maxBytes)
	if _, _, _, err := part.part.Offsets(part.epoch); err != nil { // it may be another log meanwhile
		res.Batches, res.Err = nil, err
	}
	if errors.Is(res.Err, kerr.OffsetOutOfRange) {
		if res.Err = part.part.Moved(part.offset); errors.Is(res.Err, kerr.OffsetMovedToTieredStorage) {
			res.LogStart = part.part.BatchStart(res.LogStart)
		}
	}
	for _, b := range res.Batches {
		res.Bytes += len(b)
	}
	if a.counts {
		s.opts.Ingest.CountThrottled(int64(res.Bytes), a.asked)
	}
	return res, false
}

// quiet adds partitions whose high watermark or log start the follower does not know yet.
func (ses *followerSession) quiet(out []FollowerResponse) []FollowerResponse {
	for _, p := range ses.feed.TakeQuiet() {
		part := ses.byLog[p]
		if part == nil || part.sent {
			continue
		}
		high, lo, _, err := p.Offsets(part.epoch)
		if err != nil || high == part.toldHigh && lo == part.toldLo {
			continue
		}
		part.toldHigh, part.toldLo = high, lo
		out = append(out, FollowerResponse{FollowerKey: part.key, HighWatermark: high, LogStart: lo})
	}
	return out
}

func (ses *followerSession) push(part *followerPart) {
	if !part.queued {
		part.queued = true
		ses.ready = append(ses.ready, part)
	}
}

func (ses *followerSession) forget(k FollowerKey) {
	part := ses.parts[k]
	if part == nil {
		return
	}
	ses.feed.Leave(part.part)
	delete(ses.parts, k)
	if ses.byLog[part.part] == part {
		delete(ses.byLog, part.part)
	}
}
