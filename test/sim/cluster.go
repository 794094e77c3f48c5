package sim

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/broker"
	"github.com/varvelog/varve/internal/service"
	"github.com/varvelog/varve/internal/vnet"
	"github.com/varvelog/varve/objstore/fault"
	"github.com/varvelog/varve/objstore/mem"
)

const (
	clientIP = "10.0.1.1"
	bucketIP = "10.0.2.1" // a name for the way to the bucket, which is no host
)

// plan is what a seed makes of a cluster.
type plan struct {
	brokers    int
	partitions int
	syncEvery  time.Duration // what the log's syncs take
	latency    time.Duration
	faults     time.Duration // how long there are faults
	tierAfter  time.Duration
	producers  int
	appendTime bool // the topic's records get the broker's time
}

// cluster is everything of one run.
type cluster struct {
	seed   uint64
	plan   plan
	dir    string
	log    *slog.Logger
	net    *vnet.Net
	quorum *quorum
	bucket *mem.Bucket
	store  *fault.Bucket // in front of bucket
	nodes  []*node
	procs  *service.Group // what ends with processes
	work   *service.Group // supervisors

	ledger *ledger

	mu        sync.Mutex
	anomalies []string
	counts    map[string]int
	registers []*register
	splitEnds time.Time // of the last cut
}

func newCluster(seed uint64, p plan, dir string, log *slog.Logger) (*cluster, error) {
	c := &cluster{seed: seed, plan: p, dir: dir, log: log, ledger: newLedger(p.partitions), counts: map[string]int{}}
	c.net = vnet.New(vnet.Options{Clock: steadyClock{}, Latency: p.latency, Jitter: p.latency, Seed: seed})
	c.quorum = newQuorum(c.net, p.brokers, seed)
	c.bucket = mem.New(mem.Options{ForbidReuse: true})
	c.store = fault.Wrap(c.bucket, nil)
	c.procs, c.work = service.NewGroup(context.Background()), service.NewGroup(context.Background())
	for id := range p.brokers {
		n, err := newNode(c, int32(id+1))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
		c.work.Go(n.supervise)
	}
	return c, nil
}

// fail notes what must not happen.
func (c *cluster) fail(err error) {
	c.log.Error("anomaly", slog.Any("what", err))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.anomalies) < 100 {
		c.anomalies = append(c.anomalies, err.Error())
	}
}

func (c *cluster) failf(format string, args ...any) { c.fail(fmt.Errorf(format, args...)) }

// count adds to a figure of the report.
func (c *cluster) count(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what] += n
}

// split notes that somebody will be cut off from others for a while.
func (c *cluster) split(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end := time.Now().Add(d); end.After(c.splitEnds) {
		c.splitEnds = end
	}
}

// quiet tells whether nobody has been cut off for a while.
func (c *cluster) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.splitEnds) > quietAfter
}

func (c *cluster) brokerConfig(n *node) broker.Config {
	var voters []string
	for id := range c.plan.brokers {
		voters = append(voters, fmt.Sprintf("%d@10.0.0.%d:2380", id+1, id+1))
	}
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return broker.Config{
		NodeID: n.id, DataDir: n.dir, KafkaAddr: n.addr(), HTTPAddr: n.ip + ":8080", Voters: strings.Join(voters, ","),
		ObjectStore: "mem:", Memory: 512 << 20,
		Set: map[string]string{
			"min.insync.replicas": "2", "default.replication.factor": "3", "auto.create.topics.enable": "false",
			"offsets.topic.num.partitions": "2", "group.initial.rebalance.delay.ms": "100",
			"broker.heartbeat.interval.ms": "500", "broker.session.timeout.ms": "3000", "replica.lag.time.max.ms": "3000",
			"replica.socket.timeout.ms": "3000",
			"varve.tiering.max.lag.ms":  ms(c.plan.tierAfter), "log.local.retention.ms": ms(2 * c.plan.tierAfter),
			// No clock is wrong by so much that retention, or idle producers, may go by what these say.
			"log.retention.ms": ms(3 * 2 * wrongMost), "log.retention.check.interval.ms": "2000", "producer.id.expiration.ms": ms(3 * 2 * wrongMost),
			"log.message.timestamp.before.max.ms": ms(3 * 2 * wrongMost), "log.message.timestamp.after.max.ms": ms(3 * 2 * wrongMost),
			"varve.scrub.interval.ms": "10000", "varve.gc.grace.ms": "20000", "varve.cache.disk.bytes": "0",
		},
	}
}

// client returns options of a client on its own host.
func (c *cluster) client(opts ...kgo.Opt) []kgo.Opt {
	var seeds []string
	for _, n := range c.nodes {
		seeds = append(seeds, n.addr())
	}
	host := c.net.Host(clientIP)
	return append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(5 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.AlwaysRetryEOF(), kgo.RequestTimeoutOverhead(3 * time.Second), kgo.DialTimeout(2 * time.Second),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := host.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return shake(ctx, conn), nil
		}),
	}, opts...)
}

// others are the addresses of everybody but one.
func (c *cluster) others(n *node) []string {
	out := []string{clientIP, bucketIP}
	for _, o := range c.nodes {
		if o != n {
			out = append(out, o.ip)
		}
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
