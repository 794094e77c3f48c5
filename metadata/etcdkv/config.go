package etcdkv

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
)

// Options configure an embedded member.
type Options struct {
	// NodeID is the broker's id; the member is named after it.
	NodeID base.BrokerID
	// DataDir is the broker's data directory; the member keeps its files in its folder "etcd".
	DataDir string
	// PeerAddr and ClientAddr are host:port to listen on, by default 127.0.0.1 with ports 2380 and 2379. Port 0 takes any.
	PeerAddr, ClientAddr string
	// ClusterToken must be the same on all members and differ from that of other clusters. Default "varve".
	ClusterToken string
	// QuotaBytes bounds the database on disk; above it etcd refuses writes. Default 2 GiB.
	QuotaBytes int64
	// TickMs and ElectionMs are raft's heartbeat interval and election timeout. Default 75 and 375, for a single member: it
	// waits one to five ticks at its start, has no peer to miss a heartbeat of, and each halving of the tick costs another
	// 0.2 to 0.4 % of a core when idle. Several members need about 50 and 500.
	TickMs, ElectionMs uint
	// Meter gets the size of the database and its quota. Default: one that records nothing.
	Meter metric.Meter
	// Logger gets etcd's log: its information as debug, its warnings and errors as such. Default slog.Default().
	Logger *slog.Logger
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	if o.PeerAddr == "" {
		o.PeerAddr = "127.0.0.1:2380"
	}
	if o.ClientAddr == "" {
		o.ClientAddr = "127.0.0.1:2379"
	}
	if o.ClusterToken == "" {
		o.ClusterToken = "varve"
	}
	if o.QuotaBytes == 0 {
		o.QuotaBytes = 2 << 30
	}
	if o.TickMs == 0 {
		o.TickMs = 75
	}
	if o.ElectionMs == 0 {
		o.ElectionMs = 5 * o.TickMs
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider().Meter("")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Validate reports what cannot work.
func (o *Options) Validate() error {
	if o.DataDir == "" {
		return errors.New("etcd: no data directory")
	}
	if o.ElectionMs < 5*o.TickMs {
		return fmt.Errorf("etcd: election timeout of %d ms: want at least five ticks of %d ms", o.ElectionMs, o.TickMs)
	}
	return nil
}

// walSegmentBytes is the preallocated size of a WAL file: etcd's own is 64 MB, of which it keeps two from the first start.
// It must hold several of the largest requests (1.5 MiB).
const walSegmentBytes = 8 << 20

// setWALSegment writes etcd's package variable, once: members of one process may start at the same time.
var setWALSegment = sync.OnceFunc(func() { wal.SegmentSizeBytes = walSegmentBytes })

func (o *Options) config(core *slogCore) (*embed.Config, error) {
	peer, err := listenURL(o.PeerAddr)
	if err != nil {
		return nil, err
	}
	client, err := listenURL(o.ClientAddr)
	if err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name = "varve-" + strconv.Itoa(int(o.NodeID))
	c.Dir = filepath.Join(o.DataDir, "etcd")
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.InitialClusterToken = o.ClusterToken
	c.ClusterState = embed.ClusterStateFlagNew // ignored where there is data; see the package comment
	c.TickMs, c.ElectionMs = o.TickMs, o.ElectionMs
	c.QuotaBackendBytes = o.QuotaBytes
	c.MaxTxnOps = metadata.MaxTxnOps
	// Old revisions are of no use to us but for a watch that was cut off for a moment. Off by default: the database would
	// grow for ever.
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModeRevision, "10000"
	// Fewer entries in memory and to replay: our transactions can be tens of kilobytes each.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 2000, 500
	c.EnableGRPCGateway = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	return c, nil
}

// listenURL resolves the host, because etcd binds to addresses only.
func listenURL(addr string) (url.URL, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return url.URL{}, fmt.Errorf("etcd listener %q: %w", addr, err)
	}
	if a.IP == nil {
		a.IP = net.IPv4zero
	}
	return url.URL{Scheme: "http", Host: a.String()}, nil
}
