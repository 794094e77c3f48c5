// Package site sets up what a cluster under test runs in: a network namespace for each broker and one for the clients, where the machine
// allows them (loopback where not), small disks, and a real S3 server behind a door that can be shut.
//
//	site.go  Site: the place and the cluster in it
//	door.go  Door: the way to the S3 server
package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/varvelog/varve/internal/testutil/netns"
	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/internal/testutil/s3server"
)

// Options configure New.
type Options struct {
	Bin      string
	Dir      string
	Brokers  int
	Loopback bool  // no namespaces, even where there could be
	S3       bool  // MinIO is the bucket; else a directory
	Disk     int64 // bytes of each broker's disk; 0: the machine's
	Memory   string
	Sets     []string
	Kafka    bool // Apache Kafka instead of Varve
	Alone    bool // no cluster: brokers that do not know of each other
}

// Site is a cluster and its surroundings. Nothing runs but the S3 server until Cluster.Start.
type Site struct {
	Cluster *proc.Cluster
	Net     *netns.Net       // nil on loopback
	Why     error            // why on loopback
	Door    *Door            // nil without S3
	Disks   *proc.SmallDisks // nil without
	Dial    proc.Dial        // from the clients' place

	s3     *s3server.Server
	bin    string
	bucket string // as this process reaches it
}

const s3Port = 9000

// New sets up; leftovers of runs that were killed are removed first.
func New(ctx context.Context, o Options) (_ *Site, err error) {
	if err := proc.RemoveLeftovers(); err != nil {
		return nil, err
	}
	s := &Site{Dial: (&net.Dialer{}).DialContext, bin: o.Bin}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	c := proc.ClusterOptions{Bin: o.Bin, Dir: o.Dir, Memory: o.Memory, Sets: o.Sets, Alone: o.Alone, Places: proc.Loopback(o.Brokers)}
	if s.Why = netns.Available(); s.Why == nil && !o.Loopback {
		if s.Net, err = netns.New(o.Brokers + 1); err != nil {
			return nil, err
		}
		c.Places = proc.Spaced(o.Brokers, s.Net.Addr, s.Net.Exec)
		s.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.Net.Dial(ctx, s.Clients(), network, address)
		}
	}
	c.Dial = s.Dial
	if err := s.addBucket(ctx, o, &c); err != nil {
		return nil, err
	}
	if o.Kafka {
		if c.Kafka, err = kafka(ctx); err != nil {
			return nil, err
		}
	}
	if o.Disk > 0 {
		s.Disks = &proc.SmallDisks{}
		c.Extra = func(n *proc.Node) error { return s.Disks.Mount(n, o.Disk) }
	}
	s.Cluster, err = proc.NewCluster(ctx, c)
	return s, err
}

func (s *Site) addBucket(ctx context.Context, o Options, c *proc.ClusterOptions) (err error) {
	if o.Kafka {
		return nil
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	if !o.S3 {
		c.Bucket = "dir://" + filepath.Join(dir, "bucket")
		s.bucket = c.Bucket
		return os.MkdirAll(dir, 0o755)
	}
	if s.s3, err = s3server.Launch(ctx, "minio", filepath.Join(dir, "s3")); err != nil {
		return err
	}
	var ln net.Listener
	if s.Net != nil {
		ln, err = s.Net.Listen(ctx, s.Clients(), "tcp", fmt.Sprintf("%s:%d", s.Net.Addr(s.Clients()), s3Port))
	} else {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return err
	}
	s.Door = NewDoor(ln, strings.TrimPrefix(s.s3.Endpoint, "http://"))
	behind := *s.s3
	behind.Endpoint = "http://" + ln.Addr().String()
	s.bucket, c.Bucket, c.Env = s.s3.BucketURL("varve", "torture"), behind.BucketURL("varve", "torture"), s.s3.Env()
	return nil
}

// kafka is three brokers' worth of settings: what min.insync.replicas and the factors are in the issue, the heap smaller than the start
// script's, since three share a machine.
func kafka(ctx context.Context) (*proc.KafkaOptions, error) {
	out, err := exec.CommandContext(ctx, "test/bench/install-kafka.sh").Output()
	if err != nil {
		return nil, fmt.Errorf("install Apache Kafka: %w", err)
	}
	return &proc.KafkaOptions{Libs: strings.TrimSpace(string(out)), Heap: "512M", Set: map[string]string{
		"min.insync.replicas": "2", "group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "8",
	}}, nil
}

// Clients is the number of the clients' node in Net.
func (s *Site) Clients() int { return s.Net.Nodes() - 1 }

// Index is a broker's node in Net.
func Index(broker int32) int { return int(broker) - 1 }

// Fsck checks the bucket, not through the door; grace is how long an object that nothing names counts as work in progress.
func (s *Site) Fsck(ctx context.Context, grace string) (string, error) {
	cmd := exec.CommandContext(ctx, s.bin, "bucket", "fsck", "--object-store", s.bucket, "--grace", grace, "--output", "json")
	cmd.Env = os.Environ()
	if s.s3 != nil {
		cmd.Env = append(cmd.Env, s.s3.Env()...)
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Close ends what still runs and removes networks and disks; the data stays but for what was on small disks.
func (s *Site) Close() error {
	var errs []error
	if s.Cluster != nil {
		errs = append(errs, s.Cluster.Close())
	}
	if s.Door != nil {
		s.Door.Close()
	}
	if s.s3 != nil {
		s.s3.Stop()
	}
	if s.Disks != nil {
		errs = append(errs, s.Disks.Close())
	}
	if s.Net != nil {
		errs = append(errs, s.Net.Close())
	}
	return errors.Join(errs...)
}
