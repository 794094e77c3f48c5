package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// Replication is what a broker needs to follow others.
type Replication struct {
	BrokerEpoch int64 // of this registration
	// Dial connects to the Kafka listener of a broker, ready for requests.
	Dial func(ctx context.Context, leader base.BrokerID) (net.Conn, error)
	// Tail is the end of the tiered range of a log and what is known there; where nothing is tiered, the zero value. Everything
	// below atLeast is known to be tiered or deleted.
	Tail func(ctx context.Context, log base.LogID, atLeast base.Offset) (FollowerStart, error)
	// Settings from the broker's configuration; zero fields take the defaults of replica.Options.
	MaxWait                     time.Duration // replica.fetch.wait.max.ms
	MinBytes                    int32         // replica.fetch.min.bytes
	MaxBytes, PartitionMaxBytes int32         // replica.fetch.response.max.bytes, replica.fetch.max.bytes
	RequestTimeout              time.Duration // replica.socket.timeout.ms
}

// followRetry is how long a partition waits that could not be written, before it is followed again.
const followRetry = 200 * time.Millisecond

// followBackoff is the first pause of a partition that its leader does not answer for: often the leader only has not seen the
// image yet.
const followBackoff = 10 * time.Millisecond

// followed is a partition and whom it follows; leader < 0: nobody.
type followed struct {
	id     replica.ID
	leader base.BrokerID
	epoch  base.LeaderEpoch
}

// replicator runs a Fetcher for each broker that leads partitions which this broker follows.
type replicator struct {
	g    *Ingest
	opts Replication
	wake chan struct{}

	// Of run alone.
	following map[base.LogID]followed
	fetchers  map[base.BrokerID]*replica.Fetcher

	mu struct {
		sync.Mutex
		news  map[base.LogID]followed // what an image changed
		retry map[base.LogID]struct{} // dropped by a fetcher: to be followed again as they are then
		logs  map[replica.ID]base.LogID
	}
}

func newReplicator(g *Ingest, o Replication) *replicator {
	r := &replicator{
		g: g, opts: o, wake: make(chan struct{}, 1),
		following: map[base.LogID]followed{}, fetchers: map[base.BrokerID]*replica.Fetcher{},
	}
	r.mu.news, r.mu.retry, r.mu.logs = map[base.LogID]followed{}, map[base.LogID]struct{}{}, map[replica.ID]base.LogID{}
	return r
}

// want says whom a log is to follow from now on.
func (r *replicator) want(log base.LogID, f followed) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.mu.news[log] = f
	r.mu.Unlock()
	r.poke()
}

// run carries out what changed, until ctx ends.
func (r *replicator) run(ctx context.Context) {
	fetching := service.NewGroup(ctx)
	defer fetching.Stop()
	for ctx.Err() == nil {
		news, again := r.take()
		r.change(fetching, news)
		if len(news) > 0 {
			continue
		}
		if again {
			r.g.sleep(ctx, r.wake, followRetry)
			r.again()
		} else {
			select {
			case <-r.wake:
			case <-ctx.Done():
			}
		}
	}
}

func (r *replicator) take() (news map[base.LogID]followed, retry bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news, r.mu.news = r.mu.news, map[base.LogID]followed{}
	return news, len(r.mu.retry) > 0
}

// again makes news of the partitions that fetchers dropped.
func (r *replicator) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for log := range r.mu.retry {
		f, ok := r.following[log]
		if _, newer := r.mu.news[log]; ok && !newer {
			delete(r.following, log)
			r.mu.news[log] = f
		}
	}
	clear(r.mu.retry)
}

// change ends what is over, syncs what this broker wrote as a leader, and follows.
func (r *replicator) change(fetching *service.Group, news map[base.LogID]followed) {
	ends := map[base.BrokerID][]replica.ID{}
	for log, f := range news {
		if old, ok := r.following[log]; ok && old != f {
			ends[old.leader] = append(ends[old.leader], old.id)
			delete(r.following, log)
		}
	}
	for leader, ids := range ends {
		if f := r.fetchers[leader]; f != nil {
			f.Unfollow(ids...)
		}
		r.mu.Lock()
		for _, id := range ids {
			delete(r.mu.logs, id)
		}
		r.mu.Unlock()
	}
	var parts []*Partition
	for log, f := range news {
		p := r.g.byLog(log)
		if _, known := r.following[log]; f.leader < 0 || p == nil || known {
			delete(news, log)
			continue
		}
		parts = append(parts, p)
	}
	if err := r.g.syncLogs(parts); err != nil {
		r.g.log.Error("sync before following", slog.Any("err", err))
		r.mu.Lock()
		for log, f := range news {
			r.following[log] = f
			r.mu.retry[log] = struct{}{}
		}
		r.mu.Unlock()
		return
	}
	begins := map[base.BrokerID][]replica.Assignment{}
	for _, p := range parts {
		f := news[p.log]
		if current, _, ok := r.g.opts.Meta.Image().Log(p.log); ok && p.damagedBeside(current, r.g.opts.Broker) {
			r.renew(fetching, p, f)
			continue
		}
		state, ok := p.followerState(f.epoch)
		if !ok {
			continue // the image has moved on, or the partition is out of service
		}
		r.following[p.log] = f
		r.mu.Lock()
		r.mu.logs[f.id] = p.log
		r.mu.Unlock()
		begins[f.leader] = append(begins[f.leader], replica.Assignment{
			ID: f.id, Epoch: f.epoch, Log: state, StartOver: p.isTieredOnly(),
		})
	}
	for leader, as := range begins {
		r.fetcher(fetching, leader).Follow(as...)
	}
}

// renew drops a damaged log that nobody counts on, and follows it then.
func (r *replicator) renew(fetching *service.Group, p *Partition, f followed) {
	r.mu.Lock()
	r.mu.logs[f.id] = p.log
	r.mu.Unlock()
	fetching.Go(func(ctx context.Context) {
		if _, err := r.StartOver(ctx, f.id, f.epoch, 0, -1); err != nil {
			r.g.log.Warn("a damaged log cannot start over", slog.String("log", p.log.String()), slog.Any("err", err))
			if !r.g.sleep(ctx, nil, repairRetry) {
				return
			}
		}
		r.wantAgain(p, f)
	})
}

// wantAgain is want, unless the log follows in another epoch by now: what an image has wanted since holds, or nobody would follow.
func (r *replicator) wantAgain(p *Partition, f followed) {
	r.mu.Lock()
	if p.followsUnder() == f.epoch { // under the lock: an image says so before it wants
		r.mu.news[p.log] = f
	}
	r.mu.Unlock()
	r.poke()
}

// followsUnder is the epoch of the leader that the partition takes its batches from.
func (p *Partition) followsUnder() base.LeaderEpoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.following
}

func (r *replicator) fetcher(fetching *service.Group, leader base.BrokerID) *replica.Fetcher {
	if f := r.fetchers[leader]; f != nil {
		return f
	}
	o := r.opts
	f := replica.NewFetcher(replica.Options{
		Self: r.g.opts.Broker, BrokerEpoch: o.BrokerEpoch, Leader: leader, Log: r, Throttle: r, Full: r.g.store.Full,
		Dial:  func(ctx context.Context) (net.Conn, error) { return o.Dial(ctx, leader) },
		Clock: r.g.clock, Logger: r.g.log, MaxWait: o.MaxWait, MinBytes: o.MinBytes, MaxBytes: o.MaxBytes,
		PartitionMaxBytes: o.PartitionMaxBytes, RequestTimeout: o.RequestTimeout, BackoffMin: followBackoff,
	})
	r.fetchers[leader] = f
	fetching.Go(f.Run)
	return f
}

// Apply implements replica.Log.
func (r *replicator) Apply(ctx context.Context, changes []replica.Change) (refused []replica.ID) {
	writes := make([]FollowerWrite, 0, len(changes))
	ids := make([]replica.ID, 0, len(changes))
	r.mu.Lock()
	for i := range changes {
		c := &changes[i]
		log, ok := r.mu.logs[c.ID]
		if !ok {
			refused = append(refused, c.ID)
			continue
		}
		w := FollowerWrite{
			Log: log, Epoch: c.Epoch, TruncateTo: base.NoOffset, Batches: c.Batches,
			HighWatermark: c.HighWatermark, LogStart: c.LogStart,
		}
		if c.Truncate {
			w.TruncateTo = c.TruncateTo
		}
		writes, ids = append(writes, w), append(ids, c.ID)
	}
	r.mu.Unlock()
	r.spend(changes)
	for i, err := range r.g.ApplyFollower(ctx, writes) {
		if err == nil {
			continue
		}
		r.g.log.Info("replicated write refused", slog.String("log", writes[i].Log.String()), slog.Any("err", err))
		refused = append(refused, ids[i])
		r.mu.Lock()
		r.mu.retry[writes[i].Log] = struct{}{}
		r.mu.Unlock()
		r.poke()
	}
	return refused
}

func (r *replicator) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// StartOver implements replica.Log.
func (r *replicator) StartOver(ctx context.Context, id replica.ID, epoch base.LeaderEpoch, acked, leaderStart base.Offset) (replica.LogState, error) {
	r.mu.Lock()
	log, ok := r.mu.logs[id]
	r.mu.Unlock()
	p := r.g.byLog(log)
	if !ok || p == nil {
		return replica.LogState{}, errGone(log)
	}
	var start FollowerStart
	if hotOnly(p.Config()) { // what is tiered does not count
		at := p.Status().LogStart
		start = FollowerStart{At: at, LogStart: at}
	} else {
		var err error
		if start, err = r.opts.Tail(ctx, log, max(leaderStart, p.tieredBeyond())); err != nil {
			return replica.LogState{}, fmt.Errorf("find the tiered end: %w", err)
		}
	}
	if start.At < leaderStart { // the record before it is of an epoch that nobody here knows
		start = FollowerStart{At: leaderStart, LogStart: leaderStart}
	}
	if start.At < acked {
		return replica.LogState{}, fmt.Errorf("start over at %d would drop records up to %d: %w", start.At, acked, kerr.OffsetOutOfRange)
	}
	w := FollowerWrite{
		Log: log, Epoch: epoch, StartOver: &start, TruncateTo: base.NoOffset,
		HighWatermark: start.At, LogStart: max(leaderStart, start.LogStart),
	}
	if err := errors.Join(r.g.ApplyFollower(ctx, []FollowerWrite{w})...); err != nil {
		return replica.LogState{}, err
	}
	r.g.metrics.startedOver.Add(ctx, 1)
	r.g.log.Debug("log starts over at the tiered end", slog.String("log", log.String()), slog.Int64("offset", int64(start.At)))
	state, ok := p.followerState(epoch)
	if !ok {
		return replica.LogState{}, errGone(log)
	}
	return state, nil
}

// isTieredOnly reports whether nothing of the log is kept here, while some of it is tiered.
func (p *Partition) isTieredOnly() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.end == 0 && p.mu.tieredEnd > 0 && !hotOnly(p.Config())
}

// tieredBeyond is an offset of which a follower knows that it is tiered or deleted, when its leader does not have the next one: what
// the roots say here may be older.
func (p *Partition) tieredBeyond() base.Offset {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.mu.tieredEnd, p.mu.end+1)
}

// followerState is the log as a fetcher has to know it; false where it does not follow in that epoch, or is out of service.
func (p *Partition) followerState(epoch base.LeaderEpoch) (replica.LogState, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.mu
	if m.leader != nil || m.damaged || m.dropped || m.following != epoch {
		return replica.LogState{}, false
	}
	return replica.LogState{
		LogStart: m.logStart, LocalStart: m.hotStart, End: m.durable, HighWatermark: m.highWater, Epochs: m.epochs,
	}, m.durable == m.end
}

// syncLogs makes everything durable that was appended to logs which are not led any more: a fetch acknowledges all below its
// offset (I1). The WAL is one, so a synced row does it.
func (g *Ingest) syncLogs(ps []*Partition) error {
	var late []*Partition
	for _, p := range ps {
		p.mu.Lock()
		if p.mu.durable < p.mu.end && !p.mu.damaged {
			late = append(late, p)
		}
		p.mu.Unlock()
	}
	for _, p := range late {
		if err := p.sync(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Partition) sync() error {
	p.order.Lock()
	w := p.g.store.NewWrite()
	p.mu.Lock()
	if p.mu.dropped || p.mu.former { // its rows are being deleted: none of an end that nothing is stored of
		p.mu.Unlock()
		p.order.Unlock()
		w.Discard()
		return nil
	}
	p.putMetaLocked(w)
	end, cuts := p.mu.end, p.mu.cuts
	p.mu.Unlock()
	commit, err := p.g.store.Apply(w)
	p.order.Unlock()
	if err == nil {
		err = commit.Wait()
	}
	if err != nil {
		return fmt.Errorf("sync log %s: %w", p.log, err)
	}
	p.mu.Lock()
	if p.mu.cuts == cuts {
		p.mu.durable = max(p.mu.durable, end)
	}
	answers := p.durableLocked()
	p.mu.Unlock()
	p.g.settle(answers)
	return nil
}

// followerOf is what a log of an image follows.
func followerOf(state *metadata.Partition, leader base.BrokerID) followed {
	return followed{replica.ID{Topic: state.TopicID, Partition: state.TP.Partition}, leader, state.LeaderEpoch}
}
