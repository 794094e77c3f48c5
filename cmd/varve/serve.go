package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/varvelog/varve/broker"
)

// stopTimeout is how long a stop waits for others; with broker's stopGrace for modules that hang it is less than the 10 s that SIGTERM
// may take (contract.md).
const stopTimeout = 7500 * time.Millisecond

// serveFlags are the flags as given; --config and the environment fill what was not.
type serveFlags struct {
	cfg       broker.Config
	set       []string
	memory    string
	config    string
	logLevel  string
	profiling bool
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: "Runs a broker until SIGTERM or SIGINT. Every flag is also an environment variable (--data-dir is VARVE_DATA_DIR)\n" +
			"and a key of the YAML file that --config names; a flag wins over the environment, the environment over the file.",
		Example: "  varve serve\n  varve serve --data-dir /var/lib/varve --set log.retention.ms=86400000 \\\n" +
			"    --object-store 's3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1&path-style=true'",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.fill(c); err != nil {
				return err
			}
			return serve(c.Context(), c, &f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.config, "config", "", "YAML file with the same keys as the flags")
	fl.Int32Var(&f.cfg.NodeID, "node-id", 1, "this broker's id")
	fl.StringVar(&f.cfg.DataDir, "data-dir", "./data", "hot store, etcd member, cache")
	fl.StringVar(&f.cfg.KafkaAddr, "kafka-addr", "127.0.0.1:9092", "Kafka listener, host:port")
	fl.StringVar(&f.cfg.Advertise, "advertise", "", "host:port that clients are told (default: the listener)")
	fl.StringVar(&f.cfg.HTTPAddr, "http-addr", "127.0.0.1:8080", "/healthz, /readyz, /metrics")
	fl.StringVar(&f.cfg.EtcdPeerAddr, "etcd-peer-addr", "", "embedded etcd, peers (default: 127.0.0.1:2380, of several voters the address in the list)")
	fl.StringVar(&f.cfg.EtcdClientAddr, "etcd-client-addr", "", "embedded etcd, clients (default: 127.0.0.1:2379, of several voters port 2379 of the host in the list)")
	fl.StringVar(&f.cfg.EtcdCertFile, "etcd-cert-file", "", "certificate (PEM) of this node for etcd's connections, to peers and clients, both ways; it names the host in --voters,\n"+
		"is good for server and client use, and is read again for each new connection, as is its key: rotate by replacing the files")
	fl.StringVar(&f.cfg.EtcdKeyFile, "etcd-key-file", "", "key (PEM) of --etcd-cert-file")
	fl.StringVar(&f.cfg.EtcdCAFile, "etcd-ca-file", "", "authorities (PEM) that signed the certificates of all nodes; read at the start")
	fl.StringVar(&f.cfg.Voters, "voters", "", "id@host:2380,... (default: this node)")
	fl.StringVar(&f.cfg.Rack, "rack", "", "broker.rack")
	fl.StringVar(&f.cfg.ObjectStore, "object-store", "", "dir:///path or s3://bucket/prefix?endpoint=... (default: dir://DATA_DIR/bucket)")
	fl.StringArrayVar(&f.set, "set", nil, "name=value: a broker setting by its Kafka name; may be repeated")
	fl.StringVar(&f.memory, "memory", "", "the whole process's memory, e.g. 2GiB (default: a quarter of the machine's or the cgroup's)")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.BoolVar(&f.profiling, "profiling", false, "serve /debug/pprof/ on the HTTP address")
	return c
}

// fill takes what no flag gave from the environment, then from the file.
func (f *serveFlags) fill(c *cobra.Command) error {
	file := map[string]any{}
	path := f.config
	if path == "" {
		path = os.Getenv("VARVE_CONFIG")
	}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("--config: %w", err)
		}
		if err := yaml.Unmarshal(b, &file); err != nil {
			return fmt.Errorf("--config %s: %w", path, err)
		}
	}
	fl := c.Flags()
	for name, v := range file {
		if fl.Lookup(name) == nil || name == "config" {
			return fmt.Errorf("--config %s: unknown key %q: the keys are the names of the flags, see varve serve --help", path, name)
		}
		if fl.Changed(name) || os.Getenv(envName(name)) != "" {
			continue
		}
		for _, s := range flagValues(v) {
			if err := fl.Set(name, s); err != nil {
				return fmt.Errorf("--config %s: %s: %w", path, name, err)
			}
		}
	}
	for _, name := range []string{
		"node-id", "data-dir", "kafka-addr", "advertise", "http-addr", "etcd-peer-addr", "etcd-client-addr",
		"etcd-cert-file", "etcd-key-file", "etcd-ca-file", "voters", "rack", "object-store", "set", "memory", "log-level", "profiling",
	} {
		v := os.Getenv(envName(name))
		if v == "" || fl.Changed(name) {
			continue
		}
		for _, s := range envValues(name, v) {
			if err := fl.Set(name, s); err != nil {
				return fmt.Errorf("%s: %w", envName(name), err)
			}
		}
	}
	return f.parse()
}

func envName(flag string) string {
	return "VARVE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// envValues splits VARVE_SET, which holds several name=value separated by newlines or semicolons.
func envValues(name, v string) []string {
	if name != "set" {
		return []string{v}
	}
	return strings.FieldsFunc(v, func(r rune) bool { return r == '\n' || r == ';' })
}

// flagValues turns a YAML value into what the flag takes: a mapping or a list under set is one value each.
func flagValues(v any) []string {
	switch v := v.(type) {
	case map[string]any:
		var out []string
		for k, x := range v {
			out = append(out, fmt.Sprintf("%s=%v", k, x))
		}
		return out
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
		return out
	default:
		return []string{fmt.Sprint(v)}
	}
}

func (f *serveFlags) parse() error {
	f.cfg.Set = map[string]string{}
	for _, s := range f.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("--set %q: want name=value", s)
		}
		f.cfg.Set[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	if f.memory != "" {
		n, err := parseBytes(f.memory)
		if err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
		f.cfg.Memory = n
	}
	f.cfg.Profiling = f.profiling
	return nil
}

// parseBytes reads 512MiB, 2GB or a plain number of bytes.
func parseBytes(s string) (int64, error) {
	units := []struct {
		suffix string
		size   float64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
		{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"B", 1}, {"", 1},
	}
	for _, u := range units {
		num, ok := strings.CutSuffix(strings.TrimSpace(s), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || n <= 0 {
			return 0, fmt.Errorf("%q: want a size such as 512MiB or 2GiB", s)
		}
		return int64(n * u.size), nil
	}
	return 0, fmt.Errorf("%q: want a size such as 512MiB or 2GiB", s)
}

// serve runs the broker until a signal or a failure ends it.
func serve(ctx context.Context, c *cobra.Command, f *serveFlags) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return fmt.Errorf("--log-level %q: choose debug, info, warn or error", f.logLevel)
	}
	logger := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	b, err := broker.New(f.cfg, broker.Seams{Logger: logger, Version: version})
	if err != nil {
		return err
	}
	if err := b.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // asked to stop while starting
		}
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "Varve %s is ready.\n  Kafka  %s\n  HTTP   http://%s\n  data   %s\n  bucket %s\nTry: varve topic create hello --bootstrap %s\n",
		version, b.KafkaAddr(), b.HTTPAddr(), b.Config().DataDir, b.Config().ObjectStore, b.KafkaAddr())
	select {
	case <-ctx.Done():
	case err = <-b.Failed(): // it has been logged
	}
	stop() // a second signal ends the process at once
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, b.Stop(stopCtx))
}
