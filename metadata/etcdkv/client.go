package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/varvelog/varve/internal/base"
)

const (
	// keepAlive is how often an idle connection is probed: gRPC raises less to ten seconds, and members refuse less than five.
	keepAlive = 10 * time.Second
	// keepAliveTimeout is how long the answer may take, and (as TCP_USER_TIMEOUT) how long bytes that were sent may remain
	// unacknowledged: a connection in use that is cut off breaks that soon.
	keepAliveTimeout = 2 * time.Second
	// syncEvery is how often clients ask for the members, of which some may have come or gone.
	syncEvery = 30 * time.Second
)

// dial returns a client of the given members, which it replaces by those of the cluster every sync; 0: never. It does not
// connect before it is used.
func (m *Member) dial(urls []string, sync time.Duration) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: urls, AutoSyncInterval: sync, Logger: zap.New(m.core),
		DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAliveTimeout,
	}
	if m.opts.TLS != nil {
		tls, err := m.opts.TLS.info().ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("etcd tls: %w", err)
		}
		cfg.TLS = tls
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return c, nil
}

// startClient makes a non-voter a client of the voters, whose client URLs are asked for at their peer addresses.
func (m *Member) startClient(ctx context.Context) (err error) {
	if m.prober, err = newProber(&m.opts); err != nil {
		return err
	}
	reported := m.opts.Clock.Now()
	for {
		answers := m.prober.all(ctx, m.opts.Voters)
		err := errors.Join(checkClient(m.opts.NodeID, answers), checkTrust(answers))
		if err == nil && len(clientURLs(answers)) > 0 {
			if err = m.connect(ctx, answers); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, errRetry) {
			return err
		}
		if m.opts.Clock.Now().Sub(reported) > reportEvery {
			reported = m.opts.Clock.Now()
			m.opts.Logger.Warn("etcd: waiting for the voters", slog.String("state", describe(answers)))
		}
		if perr := m.pause(ctx, pollEvery); perr != nil {
			return fmt.Errorf("%s: no majority of the voters can be reached: %w", describe(answers), errors.Join(perr, err))
		}
	}
}

// connect opens the clients once the cluster has shown that it has a leader and is the right one.
func (m *Member) connect(ctx context.Context, answers []answer) error {
	client, err := m.dial(clientURLs(answers), syncEvery)
	if err != nil {
		return err
	}
	if err := m.checkToken(ctx, client); err != nil {
		return errors.Join(err, client.Close())
	}
	m.others = client
	m.kv = &KV{others: client, attempt: m.opts.attemptTimeout(), clock: m.opts.Clock, group: m.group}
	return nil
}

// checkClient refuses a non-voter that the cluster knows as a voter, and voters of two clusters.
func checkClient(self base.BrokerID, answers []answer) error {
	var first *answer
	for i, a := range answers {
		if a.state != running {
			continue
		}
		if first == nil {
			first = &answers[i]
		}
		if a.clusterID != first.clusterID {
			return mismatch(first.from, first.clusterID, a)
		}
		for _, member := range a.members {
			if id, ok := brokerOf(member.Name); ok && id == self {
				return fmt.Errorf("%w: node %d is a voter of the cluster but not in its own list of voters: put it in, give this node another id, or remove the voter (varve cluster remove-voter %d)",
					ErrVoters, self, self)
			}
		}
	}
	return nil
}
