package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/internal/vnet"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
)

// The times of the twin of etcd, like those of metadata/etcdkv.
const (
	kvTry        = 2 * time.Second        // an operation without an answer is given up
	kvSilence    = 3 * time.Second        // so is a watch that hears nothing
	electionLook = 100 * time.Millisecond // how often members look for a leader
)

// errNoAnswer is what a write answers that may or may not have happened.
var errNoAnswer = fmt.Errorf("no answer: %w", context.DeadlineExceeded)

var errProcessEnded = errors.New("the process has ended")

// quorum is the twin of an etcd cluster with a member beside each broker: one store, reached by those brokers that can talk to
// a majority, and a leader, who may believe in itself for a while after it was replaced.
type quorum struct {
	kv      *memkv.KV
	net     *vnet.Net
	members int
	group   *service.Group
	mu      struct {
		sync.Mutex
		rng     *rand.Rand
		up      map[string]*seat // by address, of processes that run
		leader  *seat
		deaf    map[string]bool // members whose watches stand still
		wired   map[string]bool // members that reach the others whatever the network does
		cut     map[string]bool // members that are cut from the others
		trouble float64         // the share of operations that get no answer
		slow    time.Duration
	}
}

func newQuorum(net *vnet.Net, members int, seed uint64) *quorum {
	q := &quorum{kv: memkv.New(memkv.Options{}), net: net, members: members, group: service.NewGroup(context.Background())}
	q.mu.rng = rand.New(rand.NewPCG(seed, 0x657463))
	q.mu.up, q.mu.cut, q.mu.wired, q.mu.deaf = map[string]*seat{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	q.group.Go(q.elect)
	return q
}

// stop ends the quorum after the brokers.
func (q *quorum) stop() {
	q.group.Stop()
	q.kv.Close()
}

// disturb makes a share of operations end without an answer, half of them having happened, and all of them slow.
func (q *quorum) disturb(share float64, slow time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.trouble, q.mu.slow = share, slow
}

// sit starts a member's process.
func (q *quorum) sit(ip string) *seat {
	s := &seat{q: q, ip: ip, ended: make(chan struct{}), changed: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.up[ip] = s
	return s
}

// linkedLocked tells whether two members can talk: each hears the other.
func (q *quorum) linkedLocked(a, b string) bool {
	if a == b || q.mu.cut[a] || q.mu.cut[b] || q.net.IsStopped(a) || q.net.IsStopped(b) {
		return a == b
	}
	return q.mu.wired[a] || q.mu.wired[b] || !q.net.IsCut(a, b) && !q.net.IsCut(b, a)
}

// deafen holds the events of a broker's watches back; its requests are answered all the same.
func (q *quorum) deafen(ip string, deaf bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.deaf[ip] = deaf
}

func (q *quorum) isDeaf(ip string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.deaf[ip]
}

// wire makes a member reach the others over a network of their own, or takes that away.
func (q *quorum) wire(ip string, wired bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.wired[ip] = wired
}

// isolate cuts a member, and the broker beside it, from the other members, or heals that.
func (q *quorum) isolate(ip string, cut bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.cut[ip] = cut
}

// servesLocked tells whether a member talks to a majority of all members.
func (q *quorum) servesLocked(ip string) bool {
	n := 0
	for other := range q.mu.up {
		if q.linkedLocked(ip, other) {
			n++
		}
	}
	return 2*n > q.members
}

// reaches tells whether a broker's requests are answered: some member that talks to a majority hears it, and is heard.
func (q *quorum) reaches(ip string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for other := range q.mu.up {
		if q.linkedLocked(ip, other) && q.servesLocked(other) {
			return true
		}
	}
	return false
}

// elect replaces a leader that lost its majority, until ctx ends.
func (q *quorum) elect(ctx context.Context) {
	for pause(ctx, electionLook) {
		q.mu.Lock()
		l := q.mu.leader
		lost := l == nil || q.mu.up[l.ip] != l || !q.servesLocked(l.ip)
		wait := time.Duration(300+q.mu.rng.IntN(900)) * time.Millisecond
		q.mu.Unlock()
		if lost && pause(ctx, wait) {
			q.move(nil)
		}
	}
}

// move makes another member the leader, if one can be: not the one named, and not the present one while it serves.
func (q *quorum) move(not *seat) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	old := q.mu.leader
	var able []*seat
	for _, ip := range sortedKeys(q.mu.up) {
		if s := q.mu.up[ip]; s != not && s != old && q.servesLocked(ip) {
			able = append(able, s)
		}
	}
	if len(able) == 0 {
		if old != nil && !q.servesLocked(old.ip) {
			q.mu.leader = nil
			old.lead(false)
		}
		return false
	}
	q.mu.leader = able[q.mu.rng.IntN(len(able))]
	q.mu.leader.lead(true)
	if old != nil {
		believes := time.Duration(0)
		if q.mu.rng.IntN(2) == 0 {
			believes = time.Duration(q.mu.rng.IntN(1500)) * time.Millisecond
		}
		q.group.Go(func(ctx context.Context) {
			if believes == 0 || pause(ctx, believes) {
				q.demote(old)
			}
		})
	}
	return true
}

func (q *quorum) demote(s *seat) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.leader != s {
		s.lead(false)
	}
}

// seat is one member and the client beside it: what a broker sees of the quorum (broker.Quorum).
type seat struct {
	q       *quorum
	ip      string
	p       *process
	ended   chan struct{} // the process has ended: nothing that it still does counts
	once    sync.Once
	mu      sync.Mutex
	leading bool
	changed chan struct{}
}

// end is the death of the process.
func (s *seat) end() {
	s.once.Do(func() {
		close(s.ended)
		s.q.mu.Lock()
		if s.q.mu.up[s.ip] == s {
			delete(s.q.mu.up, s.ip)
		}
		s.q.mu.Unlock()
	})
}

func (s *seat) lead(leading bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading != leading {
		s.leading = leading
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// KV implements broker.Quorum.
func (s *seat) KV() metadata.KV { return s }

// Leadership implements broker.Quorum.
func (s *seat) Leadership() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading, s.changed
}

// GiveLeadership implements broker.Quorum.
func (s *seat) GiveLeadership(context.Context) error {
	s.q.move(s)
	return nil
}

// Stopped implements broker.Quorum: members do not end by themselves.
func (s *seat) Stopped() <-chan struct{} { return nil }

// Close implements broker.Quorum.
func (s *seat) Close() error { return nil }

// ask performs an operation as over the network: it takes a while, waits where the quorum is out of reach, and may have no
// answer although it was performed. Where later is not nil, it may also be performed after it was given up: what one leader of
// etcd did not bring about, the next one may.
func (s *seat) ask(ctx context.Context, do func() error, later func()) error {
	if err := s.p.gate.pass(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, kvTry, errNoAnswer)
	defer cancel()
	s.q.mu.Lock()
	there := time.Duration(100+s.q.mu.rng.IntN(1500))*time.Microsecond + s.q.mu.slow
	back := time.Duration(100+s.q.mu.rng.IntN(1500))*time.Microsecond + s.q.mu.slow
	lost, happens := s.q.mu.rng.Float64() < s.q.mu.trouble, s.q.mu.rng.IntN(3)
	late := kvTry + time.Duration(s.q.mu.rng.IntN(5000))*time.Millisecond
	s.q.mu.Unlock()
	if err := s.pass(ctx, there); err != nil {
		return err
	}
	if lost && happens > 0 {
		if happens == 1 && later != nil {
			s.q.group.Go(func(ctx context.Context) {
				if pause(ctx, late) {
					later()
				}
			})
		}
		return s.silence(ctx)
	}
	if err := do(); err != nil {
		return err
	}
	if lost {
		return s.silence(ctx)
	}
	if err := s.pass(ctx, back); err != nil {
		return err
	}
	return s.p.gate.pass(ctx)
}

// pass waits for a time and then until the quorum is in reach.
func (s *seat) pass(ctx context.Context, d time.Duration) error {
	for {
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-s.ended:
			t.Stop()
			return errProcessEnded
		}
		if s.q.reaches(s.ip) {
			return nil
		}
		d = electionLook / 4
	}
}

func (s *seat) silence(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ended:
		return errProcessEnded
	}
}

// Get implements metadata.KV.
func (s *seat) Get(ctx context.Context, key string) (kv metadata.KeyValue, ok bool, err error) {
	err = s.ask(ctx, func() (err error) { kv, ok, err = s.q.kv.Get(ctx, key); return err }, nil)
	return kv, ok, err
}

// List implements metadata.KV.
func (s *seat) List(ctx context.Context, prefix string) (kvs []metadata.KeyValue, rev int64, err error) {
	err = s.ask(ctx, func() (err error) { kvs, rev, err = s.q.kv.List(ctx, prefix); return err }, nil)
	return kvs, rev, err
}

// Txn implements metadata.KV.
func (s *seat) Txn(ctx context.Context, cmps []metadata.Cmp, ops []metadata.Op) (res metadata.TxnResult, err error) {
	swap := slices.ContainsFunc(ops, func(o metadata.Op) bool { return strings.HasPrefix(o.Key, rootPrefix) })
	if swap {
		s.p.at(beforeSwap)
		defer func() { s.p.at(afterSwap) }()
	}
	err = s.ask(ctx, func() (err error) {
		select {
		case <-s.ended:
			return errProcessEnded
		default:
		}
		res, err = s.q.kv.Txn(ctx, cmps, ops)
		return err
	}, func() { _, _ = s.q.kv.Txn(context.Background(), cmps, ops) }) // nobody hears what came of it
	if err != nil {
		return metadata.TxnResult{}, err
	}
	return res, nil
}

// Watch implements metadata.KV.
func (s *seat) Watch(ctx context.Context, prefix string, from int64) <-chan metadata.Events {
	out := make(chan metadata.Events)
	if !s.q.group.Go(func(closed context.Context) { s.watch(ctx, closed, prefix, from, out) }) {
		close(out)
	}
	return out
}

func (s *seat) watch(ctx, closed context.Context, prefix string, from int64, out chan<- metadata.Events) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(closed, cancel)()
	defer close(out)
	in := s.q.kv.Watch(ctx, prefix, from)
	defer func() {
		cancel()
		for range in { //nolint:revive // the store's goroutine ends
		}
	}()
	for {
		var batch metadata.Events
		var ok bool
		select {
		case batch, ok = <-in:
		case <-s.ended:
			return
		}
		if !ok {
			return
		}
		if err := s.passEvents(ctx); err != nil {
			batch = metadata.Events{Err: err}
		}
		select {
		case out <- batch:
		case <-ctx.Done():
			return
		case <-s.ended:
			return
		}
		if batch.Err != nil {
			return
		}
	}
}

// passEvents is how long a broker waits for events: for ever behind a quorum that answers slowly, kvSilence out of its reach.
func (s *seat) passEvents(ctx context.Context) error {
	for s.q.isDeaf(s.ip) && pause(ctx, electionLook) {
		select {
		case <-s.ended:
			return errProcessEnded
		default:
		}
	}
	if err := s.p.gate.pass(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, kvSilence, errors.New("the member is silent"))
	defer cancel()
	s.q.mu.Lock()
	d := time.Duration(100+s.q.mu.rng.IntN(3000)) * time.Microsecond
	if s.q.mu.rng.IntN(20) == 0 {
		d += time.Duration(s.q.mu.rng.IntN(200)) * time.Millisecond
	}
	s.q.mu.Unlock()
	return s.pass(ctx, d)
}

// pause waits; false where ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
