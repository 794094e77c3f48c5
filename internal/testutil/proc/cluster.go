package proc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/varvelog/varve/internal/testutil/ports"
)

// Cluster is the brokers of one cluster, as processes that die with this one. Different Nodes may be used by different goroutines, one Node
// by one goroutine at a time.
type Cluster struct {
	Nodes []*Node // ids 1 to n
	dial  Dial
}

// Place is where a Node of a Cluster runs.
type Place struct {
	Host   string   // IP address that the other nodes reach it by
	Prefix []string // a command that executes the rest of its line there; empty: as this process
	Ports  []int    // Kafka, HTTP, etcd peer, etcd client (Kafka's controller takes the third); empty: free ones of this machine
}

// ClusterOptions configure NewCluster. Places decides how many brokers there are.
type ClusterOptions struct {
	Bin    string              // of varve
	Dir    string              // node K lives in Dir/nodeK
	Places []Place             // Loopback or Spaced
	Voters int                 // the first so many nodes; 0: three of them, or all where there are fewer
	Alone  bool                // no common voters: as many clusters of one broker each, for a build that knows no others
	Bucket string              // --object-store, shared
	Env    []string            // credentials of the bucket
	Memory string              // --memory of each
	Sets   []string            // --set name=value
	Racks  []string            // of each node; may be empty
	Dial   Dial                // how this process reaches the Hosts; nil: as it is
	Kafka  *KafkaOptions       // run Apache Kafka instead: Libs, Heap and Set are taken from it
	Extra  func(n *Node) error // the last word on each Node before its first start
}

// Loopback are n places on this machine with free ports.
func Loopback(n int) []Place {
	places := make([]Place, n)
	for i := range places {
		places[i] = Place{Host: "127.0.0.1"}
	}
	return places
}

// Spaced are n places, each with its own address and the same ports: exec(i) begins a command line that runs in place i.
func Spaced(n int, addr func(int) string, exec func(int) []string) []Place {
	places := make([]Place, n)
	for i := range places {
		places[i] = Place{Host: addr(i), Prefix: exec(i), Ports: []int{9092, 8080, 2380, 2379}}
	}
	return places
}

// NewCluster makes the directories and chooses the ports; nothing runs yet.
func NewCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	c := &Cluster{dial: o.Dial}
	const listeners = 4
	free, err := ports.Loopback(listeners * len(o.Places)) // at once, so that all differ
	if err != nil {
		return nil, err
	}
	for i, place := range o.Places {
		dir, err := filepath.Abs(filepath.Join(o.Dir, "node"+strconv.Itoa(i+1)))
		if err != nil {
			return nil, err
		}
		n, err := NewNode(o.Bin, dir)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(n.DataDir(), 0o755); err != nil {
			return nil, err
		}
		for k, addr := range []*string{&n.Kafka, &n.HTTP, &n.etcdPeer, &n.etcdConn} {
			if *addr = free[i*listeners+k]; len(place.Ports) > 0 {
				*addr = net.JoinHostPort(place.Host, strconv.Itoa(place.Ports[k]))
			}
		}
		n.ID, n.Prefix, n.dial = int32(i+1), place.Prefix, o.Dial
		n.Bucket, n.Env, n.Memory, n.Sets = o.Bucket, o.Env, o.Memory, slices.Clone(o.Sets)
		c.Nodes = append(c.Nodes, n)
	}
	for i, n := range c.Nodes {
		if err := c.introduce(ctx, o, i, n); err != nil {
			return nil, err
		}
		if o.Extra != nil {
			if err := o.Extra(n); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// introduce tells a node who the others are.
func (c *Cluster) introduce(ctx context.Context, o ClusterOptions, i int, n *Node) error {
	if o.Kafka != nil {
		return c.asKafka(ctx, *o.Kafka, n)
	}
	if o.Alone {
		if n.Bucket != "" {
			n.Bucket = alone(n.Bucket, n.ID)
		}
		return nil
	}
	voters := o.Voters
	if voters == 0 {
		voters = min(3, len(c.Nodes))
	}
	n.Args = append(n.Args, "--node-id", fmt.Sprint(n.ID), "--voters", c.voters(voters))
	if i < len(o.Racks) {
		n.Args = append(n.Args, "--rack", o.Racks[i])
	}
	return nil
}

// alone gives each cluster of one broker a bucket, or a prefix of the bucket, of its own.
func alone(bucket string, id int32) string {
	path, query, found := strings.Cut(bucket, "?")
	path = fmt.Sprintf("%s/alone%d", strings.TrimSuffix(path, "/"), id)
	if found {
		path += "?" + query
	}
	return path
}

func (c *Cluster) voters(n int) string {
	var list []string
	for _, node := range c.Nodes[:n] {
		list = append(list, fmt.Sprintf("%d@%s", node.ID, node.etcdPeer))
	}
	return strings.Join(list, ",")
}

// asKafka makes the node one of Apache Kafka's, broker and controller in one process.
func (c *Cluster) asKafka(ctx context.Context, o KafkaOptions, n *Node) error {
	o.Dir = n.Dir
	n.HTTP = ""
	config, err := writeKafkaConfig(o, map[string]string{
		"node.id": fmt.Sprint(n.ID), "controller.quorum.voters": c.voters(len(c.Nodes)),
		"listeners": "PLAINTEXT://" + n.Kafka + ",CONTROLLER://" + n.etcdPeer, "advertised.listeners": "PLAINTEXT://" + n.Kafka,
		"offsets.topic.replication.factor": fmt.Sprint(min(3, len(c.Nodes))), "default.replication.factor": fmt.Sprint(min(3, len(c.Nodes))),
	})
	if err != nil {
		return err
	}
	if err := formatKafka(ctx, o, config); err != nil {
		return err
	}
	n.vendor = func() []string { return append([]string{"java"}, kafkaArgs(o, "kafka.Kafka", config)...) }
	n.vendorReady = func(ctx context.Context) error {
		conn, err := c.Dial(ctx, "tcp", n.Kafka)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return nil
}

// Dial reaches a broker from this process.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if c.dial != nil {
		return c.dial(ctx, network, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// Start starts every node that does not run, and waits until all are ready.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes {
		if !n.Running() {
			if err := n.Start(); err != nil {
				return err
			}
		}
	}
	return c.Ready(ctx)
}

// Ready waits until every node is ready.
func (c *Cluster) Ready(ctx context.Context) error {
	return c.each(func(n *Node) error { return n.Ready(ctx) })
}

// Stop ends every node with SIGTERM, all at once; a paused one goes on first.
func (c *Cluster) Stop() error {
	return c.each(func(n *Node) error {
		if !n.Running() {
			return nil
		}
		if n.Paused() {
			if err := n.Cont(); err != nil {
				return err
			}
		}
		return n.Stop(varveEnd)
	})
}

// Close ends what still runs with SIGKILL; the data stays.
func (c *Cluster) Close() error { return c.each((*Node).Close) }

// Bootstrap are the Kafka addresses of all nodes.
func (c *Cluster) Bootstrap() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Kafka)
	}
	return addrs
}

// Node finds a node by its id.
func (c *Cluster) Node(id int32) *Node { return c.Nodes[id-1] }

func (c *Cluster) each(do func(*Node) error) error {
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
