package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/internal/service"
)

// fetchVersion is the Fetch that brokers speak to each other: topic ids (13), replica state (15).
const fetchVersion = 17

// fullPause is the time between two fetches while there is no room for records. What they tell may let some go.
const fullPause = time.Second

// interruptAfter is how long a request that does not know of a new partition may still wait before its connection is cut.
const interruptAfter = 5 * time.Millisecond

// Options of a Fetcher. Zero values take the defaults that are named.
type Options struct {
	Self        base.BrokerID
	BrokerEpoch int64 // of this broker's registration
	Leader      base.BrokerID
	Dial        func(ctx context.Context) (net.Conn, error) // to the leader, ready for requests
	Log         Log
	Throttle    Throttle     // none
	Full        func() bool  // reports that there is no room: records are not taken, high watermarks and log starts are; never
	Clock       clock.Clock  // clock.Real
	Logger      *slog.Logger // discards

	MaxWait           time.Duration // replica.fetch.wait.max.ms, 500 ms
	MinBytes          int32         // replica.fetch.min.bytes, 1
	MaxBytes          int32         // replica.fetch.response.max.bytes, 10 MiB
	PartitionMaxBytes int32         // replica.fetch.max.bytes, 1 MiB
	MaxResponseBytes  int           // a response that is larger ends the connection; 128 MiB: one batch may pass MaxBytes
	RequestTimeout    time.Duration // beyond MaxWait, 30 s
	BackoffMin        time.Duration // after an error, doubling, 100 ms
	BackoffMax        time.Duration // 1 s
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	setDefault(&o.Clock, clock.Clock(clock.Real{}))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.MaxWait, 500*time.Millisecond)
	setDefault(&o.MinBytes, 1)
	setDefault(&o.MaxBytes, 10<<20)
	setDefault(&o.PartitionMaxBytes, 1<<20)
	setDefault(&o.MaxResponseBytes, 128<<20)
	setDefault(&o.RequestTimeout, 30*time.Second)
	setDefault(&o.BackoffMin, 100*time.Millisecond)
	setDefault(&o.BackoffMax, time.Second)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Fetcher pulls the partitions that this broker follows from one leader. One goroutine calls Run; Follow and Unfollow are for
// any, but not for Log. What is not under mu belongs to Run.
type Fetcher struct {
	opts       Options
	session    session
	wake       chan struct{}  // capacity 1: the partitions have changed
	restarts   *service.Group // the logs that start over; of Run
	restarting chan struct{}  // one token per log that does so now
	away       atomic.Bool    // the bucket has not answered one of the last assignments
	mu         struct {
		sync.Mutex
		parts       map[ID]*pulled
		fresh       []*startOver // of partitions that start over before their first fetch: Run has not seen them yet
		busy        bool         // a response is being applied: the followers are ahead of the log
		waiting     int          // for that to end
		idle        sync.Cond
		link        *link // while a request is under way
		interrupted bool  // the link's deadline was moved up
	}
}

// NewFetcher returns a fetcher that follows nothing yet.
func NewFetcher(o Options) *Fetcher {
	o.EnsureDefaults()
	f := &Fetcher{opts: o, wake: make(chan struct{}, 1), restarting: make(chan struct{}, startOverLimit)}
	f.mu.parts = map[ID]*pulled{}
	f.mu.idle.L = &f.mu.Mutex
	return f
}

// Assignment is a partition to follow in an epoch of its leader. Log is the partition's log as it is, synced.
type Assignment struct {
	ID        ID
	Epoch     base.LeaderEpoch
	Log       LogState
	StartOver bool // nothing is kept here, and some of it is tiered: that needs not be fetched, though the leader may still have it
}

// Follow adds partitions. Give it all of an image at once: a long poll that does not know of them is cut short. It waits while
// a response is applied.
func (f *Fetcher) Follow(as ...Assignment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]ID, len(as))
	for i, a := range as {
		ids[i] = a.ID
	}
	f.removeLocked(ids)
	for _, a := range as {
		p := &pulled{id: a.ID, follower: NewFollower(a.Epoch, a.Log)}
		if a.StartOver {
			p.over = newStartOver(p, base.NoOffset)
			p.over.fresh = true
			f.mu.fresh = append(f.mu.fresh, p.over)
		}
		f.mu.parts[a.ID] = p
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	if f.mu.link != nil && !f.mu.interrupted {
		f.mu.interrupted = true
		_ = f.mu.link.conn.SetReadDeadline(f.opts.Clock.Now().Add(interruptAfter)) // an error shows at the read
	}
}

// Unfollow removes partitions. When it returns nothing of theirs is being applied, nor will be: the log may be led, followed
// elsewhere, or dropped.
func (f *Fetcher) Unfollow(ids ...ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(ids)
}

// settleLocked waits until followers and log say the same. Who waits goes before the next response: one follows another without
// a pause where there is traffic, and a change of leaders must not wait for the traffic to end.
func (f *Fetcher) settleLocked() {
	f.mu.waiting++
	for f.mu.busy {
		f.mu.idle.Wait()
	}
	f.mu.waiting--
	f.mu.idle.Broadcast()
}

// Run pulls until ctx ends.
func (f *Fetcher) Run(ctx context.Context) {
	f.restarts = service.NewGroup(ctx)
	defer f.restarts.Stop()
	var backoff time.Duration
	for ctx.Err() == nil {
		answered, err := f.pull(ctx)
		f.session.reset()
		switch {
		case ctx.Err() != nil:
			return
		case f.endRequest(): // interrupted
			backoff = 0
			continue
		case answered:
			backoff = 0
		}
		if backoff == 0 {
			f.opts.Logger.Info("connection to the leader ended", slog.Int("leader", int(f.opts.Leader)), slog.Any("err", err))
		}
		backoff = nextBackoff(backoff, &f.opts)
		f.sleep(ctx, backoff)
	}
}

// pull is one connection. It reports whether a response came.
func (f *Fetcher) pull(ctx context.Context) (answered bool, err error) {
	if !f.awaitWork(ctx) {
		return false, ctx.Err()
	}
	conn, err := f.opts.Dial(ctx)
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	l := newLink(conn, fmt.Sprintf("replica-%d", f.opts.Self), f.opts.MaxResponseBytes)
	for f.awaitWork(ctx) {
		if f.full() {
			f.sleep(ctx, fullPause)
		}
		req := f.begin(l)
		resp, err := l.fetch(req)
		if err != nil {
			return answered, err
		}
		f.endRequest()
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			if req.SessionEpoch == 0 {
				return answered, fmt.Errorf("fetch: %w", err)
			}
			f.session.reset() // the leader has dropped the session: ask in full
			continue
		}
		answered = true
		f.take(ctx, resp)
		f.session.answered(resp.SessionID) // after take: it may forget what the response was to
	}
	return answered, ctx.Err()
}

func (f *Fetcher) full() bool { return f.opts.Full != nil && f.opts.Full() }

// awaitWork waits until there is something to fetch; false when ctx has ended. Between responses of a live connection there is.
func (f *Fetcher) awaitWork(ctx context.Context) bool {
	for ctx.Err() == nil {
		f.startFresh(ctx)
		next := f.next()
		if len(next.due) > 0 || len(f.session.sent) > 0 {
			return true // also to tell the leader that a partition is not fetched any more
		}
		f.await(ctx, next)
	}
	return false
}

// turn is what to fetch now, in a fixed order, and how long to the next partition that waits after an error, for the quota, or starts over.
type turn struct {
	due     []*pulled
	wait    time.Duration
	changed <-chan struct{} // closed where the quota may let one go on earlier; nil where none waits for it
}

func (f *Fetcher) next() turn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nextLocked()
}

func (f *Fetcher) nextLocked() turn {
	now := f.opts.Clock.Now()
	t := turn{wait: time.Hour}
	var closed time.Duration
	var changed <-chan struct{}
	if f.opts.Throttle != nil {
		closed, changed = f.opts.Throttle.Closed(now)
	}
	for _, p := range f.mu.parts {
		switch d := p.notBefore.Sub(now); {
		case p.over != nil:
			t.wait = min(t.wait, startOverLook)
		case d > 0:
			t.wait = min(t.wait, d)
		case closed > 0 && !p.level && f.opts.Throttle.Holds(p.id):
			t.wait, t.changed = min(t.wait, closed), changed
		default:
			t.due = append(t.due, p)
		}
	}
	slices.SortFunc(t.due, func(a, b *pulled) int {
		if c := slices.Compare(a.id.Topic[:], b.id.Topic[:]); c != 0 {
			return c
		}
		return int(a.id.Partition) - int(b.id.Partition)
	})
	return t
}

// begin makes the next request. It does not wait at the leader beyond the time when a partition is to be tried again.
func (f *Fetcher) begin(l *link) *kmsg.FetchRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.nextLocked()
	wait := min(next.wait, f.opts.MaxWait)
	if len(next.due) == 0 {
		wait = 0
	}
	req := kmsg.NewPtrFetchRequest()
	req.Version = fetchVersion
	req.ReplicaState.ID, req.ReplicaState.Epoch = int32(f.opts.Self), f.opts.BrokerEpoch
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), f.opts.MinBytes, f.opts.MaxBytes
	if f.full() {
		req.MaxBytes = 1 // a batch, which no fetch is without
	}
	f.session.request(req, next.due, f.opts.PartitionMaxBytes)
	f.mu.link, f.mu.interrupted = l, false
	_ = l.conn.SetDeadline(f.opts.Clock.Now().Add(f.opts.MaxWait + f.opts.RequestTimeout)) // an error shows at the write
	return req
}

// endRequest reports whether the request was cut short for a new partition.
func (f *Fetcher) endRequest() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	interrupted := f.mu.interrupted
	f.mu.link, f.mu.interrupted = nil, false
	return interrupted
}

// take steps all followers through a response, writes what they want at once, and begins to start those over that have to.
func (f *Fetcher) take(ctx context.Context, resp *kmsg.FetchResponse) {
	changes, over := f.step(resp)
	defer f.settled()
	if len(changes) > 0 {
		f.letGo(f.opts.Log.Apply(ctx, changes))
	}
	f.startAllOver(ctx, over)
}

// letGo fetches partitions no more whose followers are ahead of their logs.
func (f *Fetcher) letGo(refused []ID) {
	if len(refused) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range refused {
		delete(f.mu.parts, id)
	}
}

// step marks the fetcher busy until settled. Partitions are steps of their own: one that fails holds up no other.
func (f *Fetcher) step(resp *kmsg.FetchResponse) (changes []Change, over []*startOver) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.mu.waiting > 0 {
		f.mu.idle.Wait()
	}
	f.mu.busy = true
	full := f.full()
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			r := &t.Partitions[j]
			p := f.mu.parts[ID{t.TopicID, r.Partition}]
			sent, ok := f.session.sent[ID{t.TopicID, r.Partition}]
			if p == nil || !ok || p.over != nil {
				continue
			}
			refused := full && len(r.RecordBatches) > 0
			if refused {
				r.RecordBatches = nil
			}
			s := p.follower.Step(response(r, sent.position))
			if s.Err != nil || s.StartOver || refused {
				f.session.void(p.id)
			}
			switch {
			case s.Stale:
			case s.Err != nil:
				f.failed(p, s.Err)
			case s.StartOver:
				p.over = newStartOver(p, base.Offset(r.LogStartOffset))
				over = append(over, p.over)
			default:
				p.backoff, p.level = 0, r.DivergingEpoch.Epoch < 0 && base.Offset(r.HighWatermark) <= p.follower.Position().Offset
				if s.Truncate || len(s.Batches) > 0 || s.Moved {
					changes = append(changes, p.change(&s))
				}
			}
		}
	}
	return changes, over
}

func (f *Fetcher) settled() {
	f.mu.Lock()
	f.mu.busy = false
	f.mu.Unlock()
	f.mu.idle.Broadcast()
}

func (f *Fetcher) failed(p *pulled, err error) {
	if p.later(&f.opts, f.opts.Clock.Now(), err) {
		level := slog.LevelWarn
		for _, e := range []error{
			errAway, kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
		} {
			if errors.Is(err, e) { // one of the two has not seen an image yet
				level = slog.LevelDebug
			}
		}
		f.opts.Logger.Log(context.Background(), level, "partition cannot be fetched", slog.Int("leader", int(f.opts.Leader)),
			slog.String("topic_id", p.id.Topic.String()), slog.Int("partition", int(p.id.Partition)), slog.Any("err", err))
	}
}

func response(r *kmsg.FetchResponseTopicPartition, to Position) Response {
	out := Response{
		To: to, Err: kerr.ErrorForCode(r.ErrorCode), Records: r.RecordBatches,
		HighWatermark: base.Offset(r.HighWatermark), LogStart: base.Offset(r.LogStartOffset),
	}
	if d := &r.DivergingEpoch; d.Epoch >= 0 {
		out.Diverging = &base.EpochStart{Epoch: base.LeaderEpoch(d.Epoch), Start: base.Offset(d.EndOffset)}
	}
	return out
}

// await waits until there may be something to fetch.
func (f *Fetcher) await(ctx context.Context, next turn) {
	t := f.opts.Clock.NewTimer(next.wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-f.wake:
	case <-next.changed:
	case <-t.C:
	}
}

// sleep waits for d, or for the end of ctx.
func (f *Fetcher) sleep(ctx context.Context, d time.Duration) {
	t := f.opts.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
