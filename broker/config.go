package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata/etcdkv"
)

// Config is everything that `varve serve` can be told; the flags of the contract, one field each.
type Config struct {
	NodeID         int32
	DataDir        string
	KafkaAddr      string // listeners; today one, host:port
	Advertise      string // what clients are told; default: the listener
	HTTPAddr       string
	EtcdPeerAddr   string
	EtcdClientAddr string
	EtcdCertFile   string // with the two below: mutual TLS on etcd's connections; none: plain
	EtcdKeyFile    string
	EtcdCAFile     string
	Voters         string // empty: this node alone
	Rack           string
	ObjectStore    string            // empty: dir://DataDir/bucket
	Set            map[string]string // Kafka broker settings by name, and ours with the prefix varve.
	Memory         int64             // bytes; 0: a quarter of the machine's or the cgroup's
	Profiling      bool              // /debug/pprof/ on the HTTP address
}

// EnsureDefaults fills what was left empty (contract.md).
func (c *Config) EnsureDefaults() error {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	if c.NodeID == 0 {
		c.NodeID = 1
	}
	def(&c.DataDir, "./data")
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("data directory %q: %w", c.DataDir, err)
	}
	c.DataDir = abs
	def(&c.KafkaAddr, "127.0.0.1:9092")
	def(&c.HTTPAddr, "127.0.0.1:8080")
	if voters, err := c.voters(); err == nil && len(voters) < 2 { // of several each listens where the list says
		def(&c.EtcdPeerAddr, "127.0.0.1:2380")
		def(&c.EtcdClientAddr, "127.0.0.1:2379")
		if len(voters) == 0 || voters[0].ID == base.BrokerID(c.NodeID) {
			def(&c.ObjectStore, "dir://"+filepath.Join(c.DataDir, "bucket"))
		}
	}
	if c.Memory == 0 {
		c.Memory = machineMemory() / 4
	}
	return nil
}

// Validate says what cannot work, in words that say what to do.
func (c *Config) Validate() error {
	var errs []error
	if c.NodeID < 0 {
		errs = append(errs, fmt.Errorf("--node-id %d: must not be negative", c.NodeID))
	}
	for flag, addr := range map[string]string{
		"--http-addr": c.HTTPAddr, "--etcd-peer-addr": c.EtcdPeerAddr, "--etcd-client-addr": c.EtcdClientAddr,
	} {
		if _, _, err := net.SplitHostPort(addr); addr != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s %q: want host:port: %w", flag, addr, err))
		}
	}
	if _, err := c.listener(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.voters(); err != nil {
		errs = append(errs, err)
	}
	if t := c.etcdTLS(); t != nil {
		if err := t.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("--etcd-cert-file, --etcd-key-file, --etcd-ca-file: %w", err))
		}
	}
	if c.ObjectStore == "" {
		errs = append(errs, errors.New("--object-store: the brokers of a cluster need a shared one: s3://bucket/prefix?endpoint=..., "+
			"or dir:///path on a file system that all of them see"))
	}
	const least = 64 << 20
	if c.Memory < least {
		errs = append(errs, fmt.Errorf("--memory %d: a broker needs at least %d bytes", c.Memory, least))
	}
	return errors.Join(errs...)
}

// voters is --voters taken apart.
func (c *Config) voters() (out []etcdkv.Voter, err error) {
	if c.Voters == "" {
		return nil, nil
	}
	for entry := range strings.SplitSeq(c.Voters, ",") {
		id, addr, ok := strings.Cut(strings.TrimSpace(entry), "@")
		n, err := strconv.ParseInt(id, 10, 32)
		if !ok || err != nil || n < 0 {
			return nil, fmt.Errorf("--voters %q: %q: want id@host:port,...", c.Voters, entry)
		}
		out = append(out, etcdkv.Voter{ID: base.BrokerID(n), PeerAddr: addr})
	}
	return out, nil
}

// etcdTLS is what etcd's connections are protected with; nil: nothing.
func (c *Config) etcdTLS() *etcdkv.TLS {
	if t := (etcdkv.TLS{CertFile: c.EtcdCertFile, KeyFile: c.EtcdKeyFile, CAFile: c.EtcdCAFile}); t != (etcdkv.TLS{}) {
		return &t
	}
	return nil
}

// listener is the host:port of the one plain listener, with or without NAME=PROTOCOL://.
func (c *Config) listener() (string, error) {
	addr := c.KafkaAddr
	if strings.Contains(addr, ",") {
		return "", fmt.Errorf("--kafka-addr %q: this build has one listener", c.KafkaAddr)
	}
	if _, rest, ok := strings.Cut(addr, "://"); ok {
		proto := addr[:len(addr)-len(rest)-3]
		if _, p, named := strings.Cut(proto, "="); named {
			proto = p
		}
		if proto != "PLAINTEXT" {
			return "", fmt.Errorf("--kafka-addr %q: protocol %s is not built yet, use PLAINTEXT", c.KafkaAddr, proto)
		}
		addr = rest
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return "", fmt.Errorf("--kafka-addr %q: want host:port: %w", c.KafkaAddr, err)
	}
	return addr, nil
}

// advertised is what clients are told, given the address that the listener got.
func (c *Config) advertised(bound net.Addr) (host string, port int32, err error) {
	addr := c.Advertise
	if addr == "" {
		if addr, err = c.listener(); err != nil {
			return "", 0, err
		}
		h, _, _ := net.SplitHostPort(addr)
		_, p, _ := net.SplitHostPort(bound.String())
		if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
			if h, err = os.Hostname(); err != nil {
				return "", 0, fmt.Errorf("host name to advertise: %w", err)
			}
		}
		addr = net.JoinHostPort(h, p)
	}
	if _, rest, ok := strings.Cut(addr, "://"); ok {
		addr = rest
	}
	h, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("--advertise %q: want host:port: %w", c.Advertise, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("--advertise %q: port: %w", c.Advertise, err)
	}
	return h, int32(n), nil
}

// machineMemory is the memory of the machine, or of the cgroup where that is less; 4 GiB where neither can be read.
func machineMemory() int64 {
	total := int64(4 << 30)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
				if kb, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					total = kb << 10
				}
			}
		}
	}
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			total = min(total, n)
		}
	}
	return total
}

// budgets splits the process's memory (I10). What is not named stays for connections, groups, metadata and the runtime.
type budgets struct {
	memTable, blockCache int64 // Pebble; it holds up to 2.3 memtables
	tail                 int64 // newest committed batches
	cacheMemory          int64
	requests             int64 // bytes of requests that are read or wait
	uploads              int64 // bytes of objects on their way to the bucket
	untiered, hot        int64 // sizing law: W, and what is tiered and still hot
}

func split(memory int64) budgets {
	b := budgets{
		memTable:    min(128<<20, memory/16),
		blockCache:  min(64<<20, memory/64),
		tail:        min(256<<20, memory/16),
		cacheMemory: min(1<<30, memory/8),
		requests:    min(512<<20, memory/8),
		uploads:     min(128<<20, memory/16),
	}
	b.untiered, b.hot = b.memTable/8, b.memTable/8
	return b
}

// cacheDisk is the share of the disk that blocks of tiered objects get. A directory bucket is on a disk already: a second copy
// of its blocks there costs more than reading them again, out of the system's page cache.
func (c *Config) cacheDisk() int64 {
	if c.directoryBucket() {
		return 0
	}
	return 1 << 30
}

func (c *Config) directoryBucket() bool { return strings.HasPrefix(c.ObjectStore, "dir:") }
