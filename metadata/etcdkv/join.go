package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/varvelog/varve/metadata"
)

const (
	// pollEvery is the pause between two looks at what another node does: starts, becomes healthy, catches up.
	pollEvery = 100 * time.Millisecond
	// reportEvery is how often a start that waits says for what.
	reportEvery = 10 * time.Second
	// requestTimeout bounds one request of a start, so that it looks around again.
	requestTimeout = 2 * time.Second
)

// tokenKey holds the cluster token: etcd looks at its own only while a cluster is bootstrapped.
const tokenKey = "/varve/etcd/token"

// errRetry marks what the next look at the cluster may find changed.
var errRetry = errors.New("try again")

// startEmpty starts a voter that has no data, as chooseStart decides, and returns the member that etcd made of it.
func (m *Member) startEmpty(ctx context.Context, cfg *embed.Config) error {
	self, _ := voterOf(m.opts.Voters, m.opts.NodeID)
	others := without(m.opts.Voters, self.ID)
	id, err := m.opts.newClusterID()
	if err != nil {
		return err
	}
	room, err := openWaitingRoom(&m.opts, cfg.ListenPeerUrls[0].Host, id)
	if err != nil {
		return err
	}
	defer func() {
		if room != nil {
			room.close()
		}
	}()
	reported := m.opts.Clock.Now()
	for {
		answers := m.prober.all(ctx, others)
		mode, err := chooseStart(self.ID, id, answers)
		if err == nil {
			err = checkTrust(answers)
		}
		switch {
		case err != nil:
			return err
		case mode == startNew:
			room.close()
			return m.embed(cfg)
		case mode == startJoin:
			err = m.join(ctx, cfg, answers, room.close)
			if !errors.Is(err, errRetry) {
				return err
			}
			if room.closed {
				var rerr error
				if room, rerr = openWaitingRoom(&m.opts, cfg.ListenPeerUrls[0].Host, id); rerr != nil {
					return errors.Join(rerr, err)
				}
			}
		}
		if m.opts.Clock.Now().Sub(reported) > reportEvery {
			reported = m.opts.Clock.Now()
			m.opts.Logger.Warn("etcd: waiting for the other voters", slog.String("state", describe(answers)))
		}
		if perr := m.pause(ctx, pollEvery); perr != nil {
			return fmt.Errorf("%s: the first start of a cluster needs all its voters, the start of a voter without data a majority of the others: %w",
				describe(answers), errors.Join(perr, err))
		}
	}
}

// describe tells which voters are in the way of a start.
func describe(answers []answer) string {
	words := [...]string{silent: "does not answer", waiting: "waits", running: "runs"}
	parts := make([]string, len(answers))
	for i, a := range answers {
		parts[i] = fmt.Sprintf("voter %d@%s %s", a.from.ID, a.from.PeerAddr, words[a.state])
		if a.distrust != nil {
			parts[i] += fmt.Sprintf(" (%v)", a.distrust)
		}
	}
	return strings.Join(parts, ", ")
}

func (m *Member) pause(ctx context.Context, d time.Duration) error {
	timer := m.opts.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join lets this node into the running cluster as a learner; its promotion follows once it serves. The member of a lost
// disk is removed before: raft panics, and takes the process with it, when an id comes back without what it had
// acknowledged. Errors that are errRetry may pass.
func (m *Member) join(ctx context.Context, cfg *embed.Config, answers []answer, leaveRoom func()) error {
	client, err := m.dial(clientURLs(answers), 0)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // nothing is under way
	if err := m.checkToken(ctx, client); err != nil {
		return err
	}
	if err := m.checkStranger(ctx, client); err != nil {
		return err
	}
	var list *clientv3.MemberListResponse
	if err := m.request(ctx, func(ctx context.Context) (err error) { list, err = client.MemberList(ctx); return err }); err != nil {
		return err
	}
	self, _ := voterOf(m.opts.Voters, m.opts.NodeID)
	selfURL := m.opts.peerURL(self)
	lost, err := admit(self, selfURL, m.opts.Voters, list.Members)
	if err != nil {
		return err
	}
	if err := m.checkGone(ctx, selfURL, lost); err != nil {
		return err
	}
	for _, old := range lost {
		m.opts.Logger.Warn("etcd: the disk of this voter is empty, its former member is removed", slog.String("name", old.Name))
		if err := m.request(ctx, func(ctx context.Context) error { _, err := client.MemberRemove(ctx, old.ID); return err }); err != nil {
			return err
		}
	}
	var added *clientv3.MemberAddResponse
	err = m.request(ctx, func(ctx context.Context) (err error) {
		added, err = client.MemberAddAsLearner(ctx, []string{selfURL})
		return err
	})
	if err != nil {
		return err
	}
	leaveRoom()
	cfg.ClusterState = embed.ClusterStateFlagExisting
	cfg.InitialCluster = initialCluster(cfg.Name, added.Member.ID, added.Members)
	if err := m.embed(cfg); err != nil {
		return fmt.Errorf("%w: %w", errRetry, err) // the membership may have changed, or no other has heard of this one
	}
	return nil
}

func initialCluster(name string, self uint64, members []*pb.Member) string {
	var parts []string
	for _, m := range members {
		n := m.Name
		switch {
		case m.ID == self:
			n = name
		case n == "": // has not started; the name is of no meaning
			n = fmt.Sprintf("member-%x", m.ID)
		}
		for _, u := range m.PeerURLs {
			parts = append(parts, n+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// request runs one bounded request of the join. What the cluster refuses or does not answer may go better later: it
// refuses changes of members for some seconds after each change (StrictReconfigCheck).
func (m *Member) request(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), requestTimeout)
	defer cancel()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%w: %w", errRetry, err)
	}
	return nil
}

// checkGone refuses to remove a member that still answers, at an address other than this node's.
func (m *Member) checkGone(ctx context.Context, selfURL string, lost []*pb.Member) error {
	for _, old := range lost {
		for _, u := range old.PeerURLs {
			_, addr, _ := strings.Cut(u, "://")
			if u == selfURL {
				continue
			}
			if a := m.prober.one(ctx, Voter{ID: m.opts.NodeID, PeerAddr: addr}); a.state != silent {
				return fmt.Errorf("%w: voter %d runs at %s already: give this node another id, or stop that one", ErrNodeIDInUse, m.opts.NodeID, addr)
			}
		}
	}
	return nil
}

// checkStranger shows the cluster to whoever started this node.
func (m *Member) checkStranger(ctx context.Context, client *clientv3.Client) error {
	if m.opts.Check == nil {
		return nil
	}
	kv := &KV{others: client, attempt: m.opts.attemptTimeout(), clock: m.opts.Clock, group: m.group}
	var refused error
	err := m.request(ctx, func(ctx context.Context) error {
		err := m.opts.Check(ctx, kv)
		if errors.Is(err, metadata.ErrStranger) {
			refused, err = err, nil
		}
		return err
	})
	return errors.Join(refused, err)
}

// checkToken compares the cluster's token with ours.
func (m *Member) checkToken(ctx context.Context, kv clientv3.KV) error {
	var resp *clientv3.GetResponse
	if err := m.request(ctx, func(ctx context.Context) (err error) { resp, err = kv.Get(ctx, tokenKey); return err }); err != nil {
		return err
	}
	if len(resp.Kvs) > 0 && string(resp.Kvs[0].Value) != m.opts.ClusterToken {
		return fmt.Errorf("%w: its token is %q, this node's %q: correct the voters' addresses or the token",
			ErrWrongCluster, resp.Kvs[0].Value, m.opts.ClusterToken)
	}
	return nil
}

// writeToken stores the token of a new cluster. A cluster of one voter has none until it is started with a list.
func (m *Member) writeToken(ctx context.Context) error {
	_, err := m.kv.Txn(ctx, []metadata.Cmp{metadata.Absent(tokenKey)}, []metadata.Op{metadata.Put(tokenKey, []byte(m.opts.ClusterToken))})
	if err != nil {
		return fmt.Errorf("%w: %w", errRetry, err)
	}
	return nil
}
