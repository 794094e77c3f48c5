package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/varvelog/varve/internal/service"
)

// keepAlive is how often the watch connection is probed, and how long an answer may take.
const keepAlive = 10 * time.Second

// Member is an embedded etcd member.
type Member struct {
	core    *slogCore
	etcd    *embed.Etcd
	local   *clientv3.Client // in process: KV only
	watcher *clientv3.Client // TCP: watches only
	kv      *KV
	gauges  metric.Registration
	lock    *fileutil.LockedFile
}

// ErrLocked says that another process runs a member on the same data directory.
var ErrLocked = errors.New("the data directory is in use by another process")

// Start embeds a member and returns once it serves: with one voter that takes an election of one and a few syncs. ctx
// bounds the start only.
func Start(ctx context.Context, opts Options) (*Member, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	setWALSegment()
	m := &Member{core: newSlogCore(opts.Logger)}
	cfg, err := opts.config(m.core)
	if err != nil {
		return nil, err
	}
	if m.lock, err = lockDir(filepath.Join(opts.DataDir, "etcd")); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if m.etcd, err = embed.StartEtcd(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), m.lock.Close())
	}
	if err := m.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), m.Close())
	}
	m.local = v3client.New(m.etcd.Server)
	m.watcher, err = clientv3.New(clientv3.Config{
		Endpoints:            []string{m.ClientURL()},
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAlive,
		Logger:               zap.New(m.core),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: watch client: %w", err), m.Close())
	}
	if m.gauges, err = m.observe(opts.Meter, opts.QuotaBytes); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.kv = &KV{kv: m.local, watcher: m.watcher, group: service.NewGroup(context.Background())}
	return m, nil
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

func (m *Member) awaitReady(ctx context.Context) error {
	select {
	case <-m.etcd.Server.ReadyNotify():
		return nil
	case err := <-m.etcd.Err():
		return err
	case <-m.etcd.Server.StopNotify():
		return errors.New("the member stopped")
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", ctx.Err())
	}
}

// KV returns the store that the member serves. It is of no use after Close.
func (m *Member) KV() *KV { return m.kv }

// ClientURL is where clients reach the member; with port 0 it names the port that was taken.
func (m *Member) ClientURL() string { return "http://" + m.etcd.Clients[0].Addr().String() }

// Stopped is closed when the member has stopped by itself: it was removed from the cluster or its disk failed.
func (m *Member) Stopped() <-chan struct{} { return m.etcd.Server.StopNotify() }

// Close stops the member and waits for it. What was committed is on disk before, so it loses nothing.
func (m *Member) Close() error {
	m.core.muted.Store(true)
	var errs []error
	if m.gauges != nil {
		errs = append(errs, m.gauges.Unregister())
	}
	if m.kv != nil {
		m.kv.group.Stop()
	}
	for _, c := range []*clientv3.Client{m.watcher, m.local} {
		if c != nil {
			if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, err)
			}
		}
	}
	m.etcd.Close()
	return errors.Join(append(errs, m.lock.Close())...)
}
