package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// varve is the binary under test; programs are those under test/, by name.
var (
	varve    string
	programs = map[string]string{"torture": "", "tierscale": ""}
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "varve-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		varve = filepath.Join(dir, "varve")
		build := map[string]string{"./cmd/varve": varve}
		for name := range programs {
			programs[name] = filepath.Join(dir, name)
			build["./test/"+name] = programs[name]
		}
		for pkg, out := range build {
			cmd := exec.Command("go", "build", "-o", out, pkg)
			cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

func start(t *testing.T, sets ...string) *proc.Node {
	t.Helper()
	n, err := proc.NewNode(varve, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n.Memory, n.Sets = "512MiB", sets
	t.Cleanup(func() { _ = n.Close() })
	boot(t, n)
	return n
}

func boot(t *testing.T, n *proc.Node) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, n *proc.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(n.Kafka), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// TestGroupAcrossRestarts produces and consumes with the same clients while the broker is stopped, killed and started again.
func TestGroupAcrossRestarts(t *testing.T) {
	n := start(t, "group.initial.rebalance.delay.ms=0", "log.segment.bytes=1048576")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	producer := client(t, n, kgo.DefaultProduceTopic("t"), kgo.UnknownTopicRetries(-1))
	if _, err := kadm.NewClient(producer).CreateTopic(ctx, 3, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	consumer := client(t, n, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := map[string]int{}
	next := 0
	for round := range 4 {
		for range 500 {
			r := &kgo.Record{Key: fmt.Appendf(nil, "k%d", next), Value: fmt.Appendf(nil, "v%d", next), Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Appendf(nil, "%d", next)}}}
			producer.Produce(ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
			next++
		}
		if err := producer.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		for len(seen) < next {
			fs := consumer.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("round %d: %d of %d records: %v", round, len(seen), next, fs.Errors())
			}
			fs.EachRecord(func(r *kgo.Record) {
				if len(r.Headers) != 1 || "v"+string(r.Headers[0].Value) != string(r.Value) {
					t.Errorf("record %s has headers %v", r.Value, r.Headers)
				}
				seen[string(r.Value)]++
			})
		}
		if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			_ = n.End(syscall.SIGKILL) // its exit status is the signal
		} else if err := n.End(syscall.SIGTERM); err != nil {
			t.Fatalf("SIGTERM: %v", err)
		}
		boot(t, n)
	}
	for v, k := range seen {
		if k != 1 {
			t.Errorf("%s was delivered %d times although every poll was committed", v, k)
		}
	}
	// A new client: franz-go does not retry the FindCoordinator inside DescribeGroups, and this client's connections died
	// with the broker that was stopped last.
	lag, err := kadm.NewClient(client(t, n)).Lag(ctx, "g")
	if err != nil || lag.Error() != nil {
		t.Fatal(err, lag.Error())
	}
	lag.Each(func(l kadm.DescribedGroupLag) {
		if l.Lag.Total() != 0 {
			t.Errorf("lag %d after all was committed", l.Lag.Total())
		}
	})
}

// TestRefusals holds the messages that a wrong start gives.
func TestRefusals(t *testing.T) {
	n := start(t)
	data := filepath.Join(n.Dir, "data")
	free := []string{"--kafka-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--data-dir", data}, "in use by another process"},
		{[]string{"--data-dir", t.TempDir(), "--set", "log.retention.hour=1"}, "log.retention.hours"},
		{[]string{"--data-dir", t.TempDir(), "--set", "num.partitions=0"}, "num.partitions"},
		{[]string{"--data-dir", t.TempDir(), "--kafka-addr", "nonsense"}, "--kafka-addr"},
		{[]string{"--data-dir", t.TempDir(), "--object-store", "ftp://x"}, "ftp"},
	} {
		out, err := exec.Command(varve, append(append([]string{"serve"}, free...), c.args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("serve %v: %v, does not say %q:\n%s", c.args, err, c.want, out)
		}
	}
	if _, err := n.Metrics(t.Context()); err != nil {
		t.Fatalf("the first broker is disturbed: %v", err)
	}
}

func runProgram(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs[name], append([]string{"--bin", varve}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	t.Logf("%s", out)
}

func TestTorture(t *testing.T) {
	runProgram(t, "torture", "--brokers", "1", "--kills", "12", "--seed", "7", "--rate", "400")
}
func TestTierScale(t *testing.T) {
	runProgram(t, "tierscale", "--bytes", "400000000", "--rate", "150e6")
}
func TestTierScaleOnVersity(t *testing.T) {
	runProgram(t, "tierscale", "--bytes", "200000000", "--rate", "150e6", "--s3", "versitygw")
}
