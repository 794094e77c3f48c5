package ingest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest/replica"
	"github.com/varvelog/varve/metadata"
)

// proposers is how many changes of ISRs are written at the same time: after a broker came back each of its partitions has one.
const proposers = 32

// proposalPause is how long a proposal rests whose write was not answered.
const proposalPause = 200 * time.Millisecond

// isrWriter writes what leaders propose, one change per partition at a time. Its queue is bounded by their number.
type isrWriter struct {
	g    *Ingest
	wake chan struct{} // one slot per writer
	mu   struct {
		sync.Mutex
		queue []proposed
	}
}

type proposed struct {
	p *Partition
	replica.Proposal
}

func newISRWriter(g *Ingest) *isrWriter {
	return &isrWriter{g: g, wake: make(chan struct{}, proposers)}
}

// push takes a proposal. It does not block: the partition's lock is held.
func (w *isrWriter) push(p *Partition, proposal *replica.Proposal) {
	w.mu.Lock()
	w.mu.queue = append(w.mu.queue, proposed{p, *proposal})
	w.mu.Unlock()
	w.signal()
}

func (w *isrWriter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *isrWriter) take() (next proposed, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.mu.queue) == 0 {
		w.mu.queue = nil
		return proposed{}, false
	}
	next = w.mu.queue[0]
	w.mu.queue = w.mu.queue[1:]
	return next, true
}

// run is one writer.
func (w *isrWriter) run(ctx context.Context) {
	for {
		next, ok := w.take()
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		w.signal() // there may be more: another writer looks
		if !w.write(ctx, next) && !w.g.sleep(ctx, nil, proposalPause) {
			return
		}
	}
}

// write writes one proposal and tells its leader. It reports whether there was an answer.
func (w *isrWriter) write(ctx context.Context, c proposed) (answered bool) {
	state, current := c.p.proposing(c.Rev)
	if !current {
		return true // the key has moved on, and the leader knows it
	}
	in := metadata.ISRProposal{
		TopicID: state.TopicID, Partition: state.TP.Partition, LeaderEpoch: c.Epoch, PartitionEpoch: state.PartitionEpoch,
	}
	for _, id := range c.ISR {
		member := metadata.ISRMember{ID: id}
		if i := slices.IndexFunc(c.Added, func(m replica.Member) bool { return m.ID == id }); i >= 0 {
			member.Epoch = c.Added[i].BrokerEpoch
		}
		in.ISR = append(in.ISR, member)
	}
	next, err := w.g.opts.Meta.ProposeISR(ctx, in)
	log := w.g.log.With(slog.String("partition", state.TP.String()), slog.Any("isr", c.ISR), slog.Any("was", state.ISR))
	switch {
	case err == nil:
		log.Debug("ISR changed")
		w.g.metrics.isrChanges.Add(ctx, 1)
		c.p.proposalWritten(next)
		return true
	case refusedISR(err):
		log.Debug("ISR change refused", slog.Any("err", err))
		c.p.proposalRefused(c.Rev)
		return true
	default:
		log.Warn("ISR change is not answered", slog.Any("err", err))
		c.p.proposalUnknown(c.Rev)
		return false
	}
}

// refusedISR are the errors of ProposeISR after which it is certain that nothing was written.
func refusedISR(err error) bool {
	for _, e := range []*kerr.Error{
		kerr.FencedLeaderEpoch, kerr.InvalidUpdateVersion, kerr.IneligibleReplica, kerr.UnknownTopicID, kerr.InvalidRequest,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// proposing is the state that a proposal was made from; false where it is another by now.
func (p *Partition) proposing(rev int64) (state metadata.Partition, current bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.state, p.mu.leader != nil && p.mu.state.Rev == rev
}

func stateOf(s *metadata.Partition, minInSync int) replica.State {
	return replica.State{Rev: s.Rev, Epoch: s.LeaderEpoch, Replicas: s.Replicas, ISR: s.ISR, ELR: s.ELR, MinInSync: minInSync}
}

func (p *Partition) proposalWritten(next *metadata.Partition) {
	p.step(func(l *replica.Leader) replica.Effects {
		if m := &p.mu; next.LeaderEpoch == m.state.LeaderEpoch && next.Rev > m.state.Rev {
			m.state, m.rev = *next, next.Rev
		}
		return l.Update(stateOf(&p.mu.state, p.minInSync()))
	})
}

func (p *Partition) proposalRefused(rev int64) {
	p.step(func(l *replica.Leader) replica.Effects { return l.Refused(rev, stateOf(&p.mu.state, p.minInSync())) })
}

func (p *Partition) proposalUnknown(rev int64) {
	p.step(func(l *replica.Leader) replica.Effects { return l.Unknown(rev) })
}

func (p *Partition) minInSync() int { return int(p.Config().MinInsyncReplicas) }

// tickReplicas looks for followers that lag, twice in the time that they may.
func (g *Ingest) tickReplicas(ctx context.Context) {
	for g.sleep(ctx, nil, g.opts.ReplicaLagMax/2) {
		now := g.clock.Now()
		for _, p := range g.all() {
			p.step(func(l *replica.Leader) replica.Effects { return l.Tick(now) })
		}
	}
}

// roleOf says whether this broker leads or follows a partition by an image. While it is fenced there it leads nothing: until
// the controller has heard of this incarnation, the image may show what an earlier one led. Nor does it once another process has
// registered with its id: what the image shows is that one's.
func (g *Ingest) roleOf(image *metadata.Image, state *metadata.Partition) role {
	leads := state.Leader == g.opts.Broker
	if me, ok := image.BrokerByID(g.opts.Broker); ok && (me.Fenced || g.opts.Replication != nil && me.Epoch != g.opts.Replication.BrokerEpoch) {
		leads = false
	}
	switch {
	case leads:
		return roleLeader
	case slices.Contains(state.Replicas, g.opts.Broker):
		return roleFollower
	default:
		return roleNone
	}
}

type role uint8

const (
	roleNone role = iota
	roleLeader
	roleFollower
)
