package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
)

// Options configure an embedded member.
type Options struct {
	// NodeID is the broker's id; the member is named after it.
	NodeID base.BrokerID
	// DataDir is the broker's data directory; the member keeps its files in its folder "etcd".
	DataDir string
	// Voters are the brokers that embed a voting member. Empty: this node alone. A node that is not in the list opens as a
	// client of those that are. To add voters to one that has run alone, restart that one with the list first.
	Voters []Voter
	// PeerAddr and ClientAddr are host:port to listen on, by default 127.0.0.1 with ports 2380 and 2379, or among several
	// voters the address in the list and the same host with port 2379. Port 0 takes any; several voters need fixed ports.
	// Other nodes reach the client listener at the host in the list.
	PeerAddr, ClientAddr string
	// ClusterToken must be the same on all nodes and differ from that of other clusters. Default "varve".
	ClusterToken string
	// TLS protects the connections between members and from clients; nil: none. All nodes must agree, from the first start with
	// several voters on.
	TLS *TLS
	// Check looks at the cluster that this node, which has no data, is about to become a member of; metadata.ErrStranger keeps it out,
	// another error is taken for one that may pass. nil: anybody may join.
	Check func(ctx context.Context, kv metadata.KV) error
	// QuotaBytes bounds the database on disk; above it etcd refuses writes. Default 2 GiB.
	QuotaBytes int64
	// TickMs and ElectionMs are raft's heartbeat interval and election timeout. Default 75 and 375, for a single member: it
	// waits one to five ticks at its start, has no peer to miss a heartbeat of, and each halving of the tick costs another
	// 0.2 to 0.4 % of a core when idle. Among several voters 50 and 500.
	TickMs, ElectionMs uint
	// Meter gets the size of the database and its quota. Default: one that records nothing.
	Meter metric.Meter
	// Clock is for the pauses of a start and between attempts; etcd has its own. Default clock.Real.
	Clock clock.Clock
	// Logger gets etcd's log: its information as debug, its warnings and errors as such. Default slog.Default().
	Logger *slog.Logger
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	o.defaultAddresses()
	if o.ClusterToken == "" {
		o.ClusterToken = "varve"
	}
	if o.QuotaBytes == 0 {
		o.QuotaBytes = 2 << 30
	}
	tickMs, ticks := uint(75), uint(5)
	if len(o.Voters) > 1 {
		tickMs, ticks = 50, 10
	}
	if o.TickMs == 0 {
		o.TickMs = tickMs
	}
	if o.ElectionMs == 0 {
		o.ElectionMs = ticks * o.TickMs
	}
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider().Meter("")
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func (o *Options) defaultAddresses() {
	peer, host := "127.0.0.1:2380", "127.0.0.1"
	if self, ok := voterOf(o.Voters, o.NodeID); ok && o.several() {
		peer = self.PeerAddr
		host, _, _ = net.SplitHostPort(peer) // Validate reports it
	}
	if o.PeerAddr == "" {
		o.PeerAddr = peer
	}
	if o.ClientAddr == "" {
		o.ClientAddr = net.JoinHostPort(host, "2379")
	}
}

// votes tells whether this node embeds a member, several whether it is one of more.
func (o *Options) votes() bool {
	_, listed := voterOf(o.Voters, o.NodeID)
	return len(o.Voters) == 0 || listed
}

func (o *Options) several() bool { return o.votes() && len(o.Voters) > 1 }

func (o *Options) electionTimeout() time.Duration {
	return time.Duration(o.ElectionMs) * time.Millisecond
}

// attemptTimeout bounds one try of a request where it may be sent to another member: a proposal that its leader has taken
// to the grave is never answered. It leaves time for an election. A voter need not rely on it: it sees that the leader changes.
func (o *Options) attemptTimeout() time.Duration {
	if o.votes() {
		return 3 * o.electionTimeout()
	}
	return 2 * o.electionTimeout()
}

// Validate reports what cannot work.
func (o *Options) Validate() error {
	if o.DataDir == "" && o.votes() {
		return errors.New("etcd: no data directory")
	}
	if err := validateVoters(o.Voters); err != nil {
		return err
	}
	if o.several() {
		if err := o.validateListeners(); err != nil {
			return err
		}
	}
	if o.TLS != nil {
		if err := o.TLS.Validate(); err != nil {
			return err
		}
	}
	if o.ElectionMs < 5*o.TickMs {
		return fmt.Errorf("etcd: election timeout of %d ms: want at least five ticks of %d ms", o.ElectionMs, o.TickMs)
	}
	return nil
}

// validateListeners reports listeners of a voter that the others cannot reach.
func (o *Options) validateListeners() error {
	self, _ := voterOf(o.Voters, o.NodeID)
	host, _, _ := net.SplitHostPort(self.PeerAddr)
	for flag, addr := range map[string]string{"peer": o.PeerAddr, "client": o.ClientAddr} {
		listen, port, err := net.SplitHostPort(addr)
		if err != nil || port == "" || port == "0" {
			return fmt.Errorf("etcd %s listener %q: several voters need a fixed host:port", flag, addr)
		}
		if isLoopback(listen) && !isLoopback(host) {
			return fmt.Errorf("etcd %s listener %q: other nodes reach voter %d at host %s and cannot reach this: listen there, or on all addresses",
				flag, addr, self.ID, host)
		}
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
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
	peer.Scheme, client.Scheme = o.TLS.scheme(), o.TLS.scheme()
	c := embed.NewConfig()
	c.Name = memberName(o.NodeID)
	c.Dir = filepath.Join(o.DataDir, "etcd")
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.InitialCluster = c.Name + "=" + peer.String()
	if o.several() {
		o.advertise(c)
	}
	if o.TLS != nil {
		c.PeerTLSInfo, c.ClientTLSInfo = o.TLS.info(), o.TLS.info()
	}
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
	// An idle watch of another node hears from the member this often, and takes it for dead without (see watchSilence).
	c.WatchProgressNotifyInterval = progressEvery
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	return c, nil
}

// advertise names the addresses that others use, and all voters, for the case of a bootstrap.
func (o *Options) advertise(c *embed.Config) {
	self, _ := voterOf(o.Voters, o.NodeID)
	host, _, _ := net.SplitHostPort(self.PeerAddr)
	_, clientPort, _ := net.SplitHostPort(o.ClientAddr)
	c.AdvertisePeerUrls = []url.URL{{Scheme: o.TLS.scheme(), Host: self.PeerAddr}}
	c.AdvertiseClientUrls = []url.URL{{Scheme: o.TLS.scheme(), Host: net.JoinHostPort(host, clientPort)}}
	parts := make([]string, len(o.Voters))
	for i, v := range o.Voters {
		parts[i] = memberName(v.ID) + "=" + o.peerURL(v)
	}
	c.InitialCluster = strings.Join(parts, ",")
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
