package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/metadata"
)

// Member is this node's part in etcd: an embedded member on a voter, only clients of the voters on any other node.
type Member struct {
	opts       Options
	core       *slogCore
	prober     *prober // of several voters, and of a non-voter
	leadership *leadership
	group      *service.Group
	kv         *KV
	others     *clientv3.Client // TCP to all voters; nil for a single voter

	// A voter only:
	etcd    *embed.Etcd
	local   *clientv3.Client // in process: KV only
	watcher *clientv3.Client // TCP to the own member: watches
	gauges  metric.Registration
	lock    *fileutil.LockedFile
	giving  atomic.Int32 // GiveLeadership is under way, also where its caller has given up
}

// Start makes this node take its part and returns once the store can be used: with a single voter that takes an election of
// one and a few syncs, with several as long as a majority of them (at their very first start: all) needs to come up. ctx
// bounds the start only.
func Start(ctx context.Context, opts Options) (*Member, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	m := &Member{
		opts: opts, core: newSlogCore(opts.Logger), leadership: newLeadership(), group: service.NewGroup(context.Background()),
	}
	start := m.startVoter
	if !opts.votes() {
		start = m.startClient
	}
	if err := start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), m.Close())
	}
	return m, nil
}

func (m *Member) startVoter(ctx context.Context) (err error) {
	setWALSegment()
	cfg, err := m.opts.config(m.core)
	if err != nil {
		return err
	}
	if m.lock, err = lockDir(cfg.Dir); err != nil {
		return err
	}
	switch {
	case !m.opts.several():
		err = m.embed(cfg)
	default:
		if err = m.checkAddress(ctx); err != nil {
			return err
		}
		if wal.Exist(filepath.Join(cfg.Dir, "member", "wal")) {
			err = m.embed(cfg)
		} else {
			err = m.startEmpty(ctx, cfg)
		}
	}
	if err != nil {
		return m.explain(ctx, err)
	}
	if m.opts.several() {
		m.group.Go(m.tend)
	}
	if err := m.awaitReady(ctx); err != nil {
		return m.explain(ctx, err)
	}
	return m.serve(ctx)
}

// checkAddress refuses to start a second node of the same id: nobody may answer where only this one will listen.
func (m *Member) checkAddress(ctx context.Context) (err error) {
	if m.prober, err = newProber(&m.opts); err != nil {
		return err
	}
	self, _ := voterOf(m.opts.Voters, m.opts.NodeID)
	if a := m.prober.one(ctx, self); a.state != silent {
		return fmt.Errorf("%w: a node answers at %s already, the address of voter %d: give this node another id, or stop that one",
			ErrNodeIDInUse, self.PeerAddr, self.ID)
	}
	return nil
}

// embed starts etcd. What a start without a write-ahead log left behind is put aside: etcd would take the database for
// one of a member.
func (m *Member) embed(cfg *embed.Config) (err error) {
	dir := filepath.Join(cfg.Dir, "member")
	if m.opts.several() && !wal.Exist(filepath.Join(dir, "wal")) && fileutil.Exist(dir) {
		if err := os.RemoveAll(dir + ".old"); err != nil {
			return err
		}
		if err := os.Rename(dir, dir+".old"); err != nil {
			return err
		}
	}
	m.etcd, err = embed.StartEtcd(cfg)
	return err
}

// awaitReady returns once the member has a leader. A member of several that is not ready at once looks whether its peers are
// of its cluster at all.
func (m *Member) awaitReady(ctx context.Context) error {
	if !m.opts.several() {
		return m.ready(ctx, nil)
	}
	for {
		timer := m.opts.Clock.NewTimer(time.Second)
		err := m.ready(ctx, timer.C)
		timer.Stop()
		// A member that knows of no other is ready whatever those of the list are.
		alone := err == nil && len(m.etcd.Server.Cluster().Members()) == 1
		if !errors.Is(err, errRetry) && !alone {
			return err
		}
		cluster := m.etcd.Server.Cluster()
		answers := m.prober.all(ctx, without(m.opts.Voters, m.opts.NodeID))
		if err := checkOthers(cluster.ID(), answers); err != nil || alone {
			return err
		}
		if err := errors.Join(checkTrust(answers), checkScheme(m.opts.TLS, uint64(m.etcd.Server.MemberID()), cluster.Members())); err != nil {
			return err
		}
	}
}

func (m *Member) ready(ctx context.Context, look <-chan time.Time) error {
	select {
	case <-m.etcd.Server.ReadyNotify():
		return nil
	case err := <-m.etcd.Err():
		return err
	case <-m.etcd.Server.StopNotify():
		return errors.New("the member stopped")
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", ctx.Err())
	case <-look:
		return errRetry
	}
}

// explain adds to an error of the start that the member was removed, where its peers say so.
func (m *Member) explain(ctx context.Context, err error) error {
	if m.etcd == nil || m.prober == nil || ctx.Err() != nil {
		return err
	}
	answers := m.prober.all(ctx, without(m.opts.Voters, m.opts.NodeID))
	if !removedBy(m.etcd.Server.Cluster().ID(), m.etcd.Server.MemberID(), answers) {
		return err
	}
	return fmt.Errorf("%w: to let it join again, clear the directory %s and start it: %w", ErrRemoved, m.etcd.Config().Dir, err)
}

// serve opens the clients of a member that is ready, and lets a learner become a voter.
func (m *Member) serve(ctx context.Context) (err error) {
	server := m.etcd.Server
	if m.opts.several() {
		if err := m.settle(ctx); err != nil {
			return err
		}
	}
	m.local = v3client.New(server)
	if m.watcher, err = m.dial([]string{m.ClientURL()}, 0); err != nil {
		return err
	}
	if m.gauges, err = m.observe(m.opts.Meter, m.opts.QuotaBytes); err != nil {
		return err
	}
	m.kv = &KV{local: m.local, watcher: m.watcher, server: server, group: m.group}
	lookEvery := time.Duration(0)
	if m.opts.several() {
		if err := m.serveSeveral(ctx); err != nil {
			return err
		}
		lookEvery = m.opts.electionTimeout() / 2
	}
	if m.kv.others != nil {
		m.kv.newReign()
	}
	m.leadership.set(server.Leader() == server.MemberID())
	m.group.Go(func(ctx context.Context) { m.followLeadership(ctx, server, lookEvery) })
	return nil
}

// serveSeveral adds what a voter needs that is not the only one: the way to the others for the time when its own member has
// no leader.
func (m *Member) serveSeveral(ctx context.Context) (err error) {
	if m.others, err = m.dial(m.memberURLs(), syncEvery); err != nil {
		return err
	}
	m.kv.others, m.kv.attempt, m.kv.clock = m.others, m.opts.attemptTimeout(), m.opts.Clock
	for {
		err := m.writeToken(ctx)
		if err == nil {
			err = m.checkToken(ctx, m.local)
		}
		if !errors.Is(err, errRetry) {
			return err
		}
		if perr := m.pause(ctx, pollEvery); perr != nil {
			return errors.Join(perr, err)
		}
	}
}

// memberURLs are the client URLs of all members that have started.
func (m *Member) memberURLs() []string {
	var urls []string
	for _, member := range m.etcd.Server.Cluster().Members() {
		if !member.IsLearner {
			urls = append(urls, member.ClientURLs...)
		}
	}
	return urls
}

// settle makes the membership say what the list of voters does: this member votes, at its address in the list.
func (m *Member) settle(ctx context.Context) error {
	server := m.etcd.Server
	for {
		// Not server.IsLearner: that panics where the member was removed a moment ago.
		if member := server.Cluster().Member(server.MemberID()); member == nil || !member.IsLearner {
			break
		}
		promote, cancel := context.WithTimeout(ctx, requestTimeout)
		_, err := server.PromoteMember(promote, uint64(server.MemberID()))
		cancel()
		if err == nil {
			break
		}
		// Not caught up, or the cluster has changed its members a moment ago.
		if perr := m.pause(ctx, pollEvery); perr != nil {
			return fmt.Errorf("promote the learner: %w", errors.Join(perr, err))
		}
	}
	self, _ := voterOf(m.opts.Voters, m.opts.NodeID)
	selfURL := m.opts.peerURL(self)
	member := server.Cluster().Member(server.MemberID())
	if member == nil {
		return ErrRemoved
	}
	if len(member.PeerURLs) == 1 && member.PeerURLs[0] == selfURL {
		return nil
	}
	// The member of a single voter, or a voter that has moved.
	_, err := server.UpdateMember(ctx, membership.Member{
		ID: server.MemberID(), RaftAttributes: membership.RaftAttributes{PeerURLs: []string{selfURL}},
	})
	if err != nil {
		return fmt.Errorf("update the member's address: %w", err)
	}
	return nil
}

// lockDir takes the directory for this process: etcd itself would wait for the other one without a word.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
	}
	return lock, err
}

// KV returns the store. It is of no use after Close.
func (m *Member) KV() metadata.KV { return m.kv }

// Votes tells whether this node embeds a member.
func (m *Member) Votes() bool { return m.etcd != nil }

// ClientURL is where clients reach the embedded member; with port 0 it names the port that was taken. A non-voter has none.
func (m *Member) ClientURL() string {
	if m.etcd == nil {
		return ""
	}
	if m.opts.several() {
		return m.etcd.Config().AdvertiseClientUrls[0].String()
	}
	return m.opts.TLS.scheme() + "://" + m.etcd.Clients[0].Addr().String()
}

// Stopped is closed when the embedded member has stopped by itself: it was removed from the cluster or its disk failed. The
// KV goes on over the other voters. A non-voter never stops.
func (m *Member) Stopped() <-chan struct{} {
	if m.etcd == nil {
		return nil
	}
	return m.etcd.Server.StopNotify()
}

// Close stops what Start started and waits for it. A leader hands its leadership over first. What was committed is on disk
// before, so it loses nothing.
func (m *Member) Close() error {
	m.core.muted.Store(true)
	var errs []error
	if m.etcd != nil {
		m.handOver()
	}
	if m.gauges != nil {
		errs = append(errs, m.gauges.Unregister())
	}
	m.group.Stop()
	for _, c := range []*clientv3.Client{m.watcher, m.local, m.others} {
		if c != nil {
			if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, err)
			}
		}
	}
	if m.etcd != nil {
		m.closeEtcd()
	}
	if m.lock != nil {
		errs = append(errs, m.lock.Close())
	}
	return errors.Join(errs...)
}

// handOver gives raft's leadership away, if this member has it, before etcd's listeners close: etcd itself does so after it has
// waited for the streams of its clients. Where nobody takes it, because all members stop at once, etcd would wait for seconds,
// twice; the server is stopped then, as is one that is not ready, whose listeners wait for it and etcd's Close for them.
func (m *Member) handOver() {
	server := m.etcd.Server
	select {
	case <-server.ReadyNotify():
	default:
		server.HardStop()
		return
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		_ = server.TryTransferLeadershipOnShutdown() // the others elect
	})
	timer := m.opts.Clock.NewTimer(2 * m.opts.electionTimeout())
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		server.HardStop() // ends the transfer
	}
	wg.Wait()
	if m.giving.Load() > 0 || server.Leader() == 0 { // a GiveLeadership was not waited for; requests wait for a leader
		server.HardStop()
	}
}

// closePatience is how long etcd has to close after its clients of this process have.
const closePatience = 500 * time.Millisecond

// closeEtcd closes etcd. Its Close waits for the first line of every connection to the client port, without end where the one
// who dialled is paused or cut off before it wrote (cmux matches it without a deadline), and for seconds for a watch of another
// node. After closePatience the server is stopped, so that what is on disk is closed, and the ports are; what still waits for
// others is left behind.
func (m *Member) closeEtcd() {
	closed := make(chan struct{})
	service.NewGroup(context.Background()).Go(func(context.Context) {
		defer close(closed)
		m.etcd.Close()
	})
	timer := m.opts.Clock.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case <-closed:
		return
	case <-timer.C:
	}
	m.etcd.Server.HardStop()
	for _, l := range m.etcd.Clients {
		_ = l.Close()
	}
	for _, l := range m.etcd.Peers {
		_ = l.Close()
	}
}
