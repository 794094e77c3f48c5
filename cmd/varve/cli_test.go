package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// asVarve makes this test's own binary behave as varve, so that the broker under test is a process of the code under test.
const asVarve = "VARVE_TEST_RUN_AS_VARVE"

func TestMain(m *testing.M) {
	if os.Getenv(asVarve) != "" {
		main()
	}
	os.Exit(m.Run())
}

// cli runs command lines against one broker.
type cli struct {
	t    *testing.T
	node *proc.Node
}

func startCLI(t *testing.T) *cli {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	node, err := proc.NewNode(self, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	node.Env = []string{asVarve + "=1"}
	node.Sets = []string{"log.retention.check.interval.ms=200", "varve.tiering.max.lag.ms=200", "group.initial.rebalance.delay.ms=0"}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &cli{t, node}
}

// run answers the exit status and both outputs.
func (c *cli) run(stdin string, args ...string) (status int, stdout, stderr string) {
	c.t.Helper()
	env := map[string]string{"VARVE_BOOTSTRAP": c.node.Kafka, "VARVE_HTTP": c.node.HTTP, "VARVE_OBJECT_STORE": "dir://" + filepath.Join(c.node.Dir, "data", "bucket")}
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	status = run(ctx, args, func(k string) string { return env[k] }, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

// ok runs a command that must succeed.
func (c *cli) ok(stdin string, args ...string) string {
	c.t.Helper()
	status, out, errs := c.run(stdin, args...)
	if status != 0 {
		c.t.Fatalf("varve %s: status %d\n%s%s", strings.Join(args, " "), status, out, errs)
	}
	return out
}

// fails runs a command that must fail and say so.
func (c *cli) fails(want string, args ...string) {
	c.t.Helper()
	if status, out, errs := c.run("", args...); status == 0 || !strings.Contains(errs, want) {
		c.t.Errorf("varve %s: status %d, %q and %q; want an error with %q", strings.Join(args, " "), status, out, errs, want)
	}
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// One broker, the commands in the order in which a user meets them.
func TestCommandLine(t *testing.T) {
	c := startCLI(t)
	for _, step := range []struct {
		name string
		test func(*testing.T, *cli)
	}{
		{"topic", testTopicCommands}, {"config", testConfigCommands}, {"produce and consume", testProduceConsume},
		{"group", testGroupCommands}, {"cluster", testClusterCommands}, {"membership", testMembership}, {"tiers and bucket", testTiersAndBucket},
		{"bench", testBenchCommands}, {"errors", testErrors},
	} {
		t.Run(step.name, func(t *testing.T) { step.test(t, &cli{t, c.node}) })
	}
	if err := c.node.End(syscall.SIGTERM); err != nil {
		t.Errorf("exit status after SIGTERM: %v", err)
	}
}

func testTopicCommands(t *testing.T, c *cli) {
	c.ok("", "topic", "create", "orders", "--partitions", "2", "--config", "retention.ms=3600000")
	c.fails("TOPIC_ALREADY_EXISTS", "topic", "create", "orders")
	c.ok("", "topic", "create", "orders", "--if-not-exists")
	c.fails("nosuch", "topic", "create", "x", "--config", "nosuch=1")
	c.ok("", "topic", "partitions", "orders", "3")
	c.ok("", "topic", "alter", "orders", "--set", "retention.ms=7200000", "--set", "segment.bytes=1048576")
	c.ok("", "topic", "create", "doomed")
	c.ok("", "topic", "delete", "doomed")
	c.fails("UNKNOWN_TOPIC_OR_PARTITION", "topic", "delete", "doomed")
	rows := decode[[]topicRow](t, c.ok("", "topic", "list", "--output", "json"))
	if len(rows) != 1 || rows[0].Name != "orders" || rows[0].Partitions != 3 || rows[0].ReplicationFactor != 1 {
		t.Errorf("%+v", rows)
	}
}

func testConfigCommands(t *testing.T, c *cli) {
	changed := map[string]string{}
	for _, r := range decode[[]configRow](t, c.ok("", "config", "describe", "topic", "orders", "--changed", "--output", "json")) {
		changed[r.Name] = *r.Value
	}
	if changed["retention.ms"] != "7200000" || changed["segment.bytes"] != "1048576" {
		t.Errorf("%v", changed)
	}
	c.ok("", "config", "alter", "topic", "orders", "--unset", "retention.ms")
	if out := c.ok("", "config", "describe", "topic", "orders", "--changed"); strings.Contains(out, "retention.ms") {
		t.Errorf("unset did not unset: %s", out)
	}
	c.ok("", "config", "alter", "broker", "default", "--set", "log.retention.ms=86400000")
	if out := c.ok("", "config", "describe", "broker", "1"); !strings.Contains(out, "86400000") {
		t.Errorf("the broker does not show its default: %s", out)
	}
	c.fails("INVALID_CONFIG", "config", "alter", "topic", "orders", "--set", "retention.ms=soon")
	c.fails("nothing to change", "config", "alter", "topic", "orders")
}

func testProduceConsume(t *testing.T, c *cli) {
	c.ok("k1:v1\nk2:v2\nk3:\n", "produce", "orders", "--partition", "0", "--key-separator", ":", "--header", "from=test", "--null-values", "--compression", "zstd")
	if out := c.ok("", "consume", "orders", "--until-end", "--key-separator", "="); out != "k1=v1\nk2=v2\nk3=\n" {
		t.Errorf("%q", out)
	}
	var got []recordJSON
	for line := range strings.Lines(c.ok("", "consume", "orders:0", "--from", "1", "--until-end", "--output", "json")) {
		got = append(got, decode[recordJSON](t, line))
	}
	if len(got) != 2 || *got[0].Key != "k2" || got[0].Offset != 1 || *got[0].Headers[0].Value != "test" || got[1].Value != nil {
		t.Errorf("%+v", got)
	}
	if out := c.ok("", "consume", "orders", "--from", "-1h", "--max", "2", "--raw"); out != "v1v2" {
		t.Errorf("%q", out)
	}
	if out := c.ok("", "consume", "orders", "--from", "end", "--until-end"); out != "" {
		t.Errorf("%q", out)
	}
	if status, _, errs := c.run("no separator here\n", "produce", "orders", "--key-separator", ":"); status == 0 || !strings.Contains(errs, "line 1") {
		t.Errorf("a line without a separator: status %d, %q", status, errs)
	}
}

func testGroupCommands(t *testing.T, c *cli) {
	if out := c.ok("", "consume", "orders", "--group", "billing", "--max", "3"); out != "v1\nv2\n\n" {
		t.Errorf("%q", out)
	}
	if rows := decode[[]groupRow](t, c.ok("", "group", "list", "--output", "json")); len(rows) != 1 || rows[0].Group != "billing" {
		t.Errorf("%+v", rows)
	}
	committed := func() int64 {
		for _, o := range decode[[]groupOffset](t, c.ok("", "group", "offsets", "billing", "--output", "json")) {
			if o.Partition == 0 {
				return *o.Committed
			}
		}
		return -1
	}
	if n := committed(); n != 3 {
		t.Errorf("committed %d", n)
	}
	c.ok("", "group", "reset", "billing", "--topic", "orders:0", "--to", "beginning", "--dry-run")
	if n := committed(); n != 3 {
		t.Errorf("a dry run has committed %d", n)
	}
	c.ok("", "group", "reset", "billing", "--topic", "orders:0", "--shift-by", "-2")
	if n := committed(); n != 1 {
		t.Errorf("committed %d", n)
	}
	c.ok("", "group", "reset", "billing", "--to", "2001-01-01")
	if n := committed(); n != 0 {
		t.Errorf("committed %d", n)
	}
	if out := c.ok("", "group", "describe", "billing"); !strings.Contains(out, "Empty") {
		t.Error(out)
	}
	c.fails("either --to or --shift-by", "group", "reset", "billing")
	c.ok("", "group", "delete", "billing")
	c.fails("GROUP_ID_NOT_FOUND", "group", "delete", "billing")
}

func testClusterCommands(t *testing.T, c *cli) {
	info := decode[clusterInfo](t, c.ok("", "cluster", "describe", "--output", "json"))
	if info.ClusterID == "" || info.Controller != 1 || len(info.Brokers) != 1 || info.Leaderless != 0 || info.Brokers[0].Address != c.node.Kafka {
		t.Errorf("%+v", info)
	}
	if rows := decode[[]brokerRow](t, c.ok("", "broker", "list", "--output", "json")); len(rows) != 1 || rows[0].NodeID != 1 {
		t.Errorf("%+v", rows)
	}
}

func testMembership(t *testing.T, c *cli) {
	yes, no := true, false
	status := decode[clusterStatus](t, c.ok("", "cluster", "status", "--output", "json"))
	if len(status.Brokers) != 1 || len(status.Voters) != 1 || status.ClusterID == "" || status.Controller != 1 || status.Partitions == 0 ||
		status.Offline+status.UnderReplicated+status.Reassigning != 0 {
		t.Fatalf("%+v", status)
	}
	b, v := status.Brokers[0], status.Voters[0]
	if b.NodeID != 1 || b.Address != c.node.Kafka || b.Fenced || !b.Controller || *b.Draining != no || *b.Voter != yes || *b.NewDisk != no || b.Leads != status.Partitions {
		t.Errorf("%+v", b)
	}
	if v.NodeID != 1 || !v.Leader || !v.Healthy || v.Learner || v.Address == "" || v.RaftTerm == 0 || v.DBBytes == 0 {
		t.Errorf("%+v", v)
	}
	c.ok("", "broker", "drain", "1")
	if out := c.ok("", "cluster", "status"); !regexp.MustCompile(`\n1 .* serves, draining  true  +true  `).MatchString(out) || !strings.Contains(out, "leader  healthy") {
		t.Error(out)
	}
	c.ok("", "broker", "drain", "1", "--cancel")
	if out := c.ok("", "cluster", "status"); strings.Contains(out, "draining") {
		t.Error(out)
	}
	c.fails("broker 9 is not registered", "broker", "drain", "9")
	c.fails("choose one", "broker", "drain", "1", "--cancel", "--wait")
	c.fails("has replicas of", "broker", "unregister", "1")
	c.fails("serves: stop it", "broker", "unregister", "1", "--force")
	c.fails("not currently registered (BROKER_ID_NOT_REGISTERED", "broker", "unregister", "9")
	c.fails("is no broker's id", "broker", "unregister", "one")
	c.fails("only voter", "cluster", "remove-voter", "1")
	c.fails("broker 9 is no voter", "cluster", "remove-voter", "9")
	c.fails("broker 9 is no voter", "cluster", "replace-voter", "9", "2@127.0.0.1:1")
	c.fails("broker 9 is no voter", "cluster", "move-controller", "9")
	c.ok("", "cluster", "move-controller", "1")
	c.fails("1 is a voter already", "cluster", "add-voter", "1@127.0.0.1:1")
	c.fails("want ID@HOST:PORT", "cluster", "add-voter", "127.0.0.1:1")
	c.ok("", "cluster", "add-voter", "2@127.0.0.1:1") // mistyped: nobody will ever start there
	status = decode[clusterStatus](t, c.ok("", "cluster", "status", "--output", "json"))
	if len(status.Voters) != 2 || status.Voters[0].NodeID != -1 || status.Voters[0].Address != "127.0.0.1:1" || !status.Voters[0].Learner {
		t.Errorf("%+v", status.Voters)
	}
	c.fails("no voter is registered at 127.0.0.1:2", "cluster", "remove-voter", "127.0.0.1:2")
	c.fails("has started: name its id", "cluster", "remove-voter", v.Address)
	c.ok("", "cluster", "remove-voter", "127.0.0.1:1")
	if status = decode[clusterStatus](t, c.ok("", "cluster", "status", "--output", "json")); len(status.Voters) != 1 {
		t.Errorf("%+v", status.Voters)
	}
	status2, out, errs := c.run("", "cluster", "status", "--output", "json", "--http", "127.0.0.1:1")
	if got := decode[clusterStatus](t, out); status2 != 0 || got.Voters != nil || got.Brokers[0].Draining != nil || !strings.Contains(errs, "unknown") {
		t.Errorf("without HTTP: status %d, %s, %q", status2, out, errs)
	}
}

// What was produced is sealed, offloaded, trimmed, and stands in the bucket.
func testTiersAndBucket(t *testing.T, c *cli) {
	c.ok("", "topic", "create", "cold", "--partitions", "1", "--config", "local.retention.ms=1", "--config", "segment.bytes=1048576")
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	c.ok(lines.String(), "produce", "cold")
	var p partitionInfo
	eventually(t, func() bool {
		p = decode[topicDescription](t, c.ok("", "topic", "describe", "cold", "--output", "json")).Partitions[0]
		return *p.TieredEndOffset == 1000 && *p.HotStartOffset == 1000
	})
	if *p.HighWatermark != 1000 || *p.LastStableOffset != 1000 || *p.LogStartOffset != 0 || *p.TieredBytes == 0 || *p.TieredObjects == 0 || p.Leader != 1 {
		t.Errorf("%+v", p)
	}
	if out := c.ok("", "consume", "cold", "--until-end"); out != lines.String() {
		t.Errorf("%d bytes back from the bucket, want %d", len(out), lines.Len())
	}
	if out := c.ok("", "bucket", "cat", "cold"); out != lines.String() {
		t.Errorf("%d bytes by bucket cat, want %d", len(out), lines.Len())
	}
	if out := c.ok("", "bucket", "cat", "cold", "--from", "998", "--max", "1"); out != "line 998\n" {
		t.Errorf("%q", out)
	}
	var fsck struct{ Objects, Missing, Corrupt, Orphans int64 }
	if err := json.Unmarshal([]byte(c.ok("", "bucket", "fsck", "--output", "json")), &fsck); err != nil || fsck.Objects == 0 || fsck.Missing+fsck.Corrupt+fsck.Orphans != 0 {
		t.Errorf("%+v, %v", fsck, err)
	}
	inspected := 0
	for _, o := range decode[[]objectRow](t, c.ok("", "bucket", "list", "v1/", "--output", "json")) {
		if o.Kind != "segment" && o.Kind != "pack" {
			continue
		}
		for _, s := range decode[[]segmentInfo](t, c.ok("", "segment", "inspect", o.Object, "--output", "json")) {
			inspected++
			if s.EndOffset <= s.BaseOffset || s.BodyBytes == 0 {
				t.Errorf("%+v", s)
			}
		}
	}
	if inspected == 0 {
		t.Error("no segment in the bucket")
	}
}

func testBenchCommands(t *testing.T, c *cli) {
	produced := decode[benchProduced](t, c.ok("", "bench", "produce", "--topic", "bench", "--records", "5000", "--size", "100", "--partitions", "4", "--connections", "2", "--output", "json"))
	if produced.Records != 5000 || produced.Failed != 0 {
		t.Errorf("%+v", produced)
	}
	consumed := decode[benchConsumed](t, c.ok("", "bench", "consume", "--topic", "bench", "--expect", "5000", "--output", "json"))
	if consumed.Records != 5000 || consumed.Integrity.Foreign != 0 {
		t.Errorf("%+v", consumed)
	}
	c.fails("were expected", "bench", "consume", "--topic", "bench", "--expect", "5001")
	c.ok("", "bench", "latency", "--topic", "bench", "--rate", "500", "--duration", "1s", "--size", "100")
	c.ok("", "bench", "consume", "--topic", "bench", "--expect", "5500")
}

func testErrors(t *testing.T, c *cli) {
	c.fails("is `varve serve` running?", "topic", "list", "--bootstrap", "127.0.0.1:1")
	c.fails("choose table or json", "topic", "list", "--output", "yaml")
	c.fails("unknown command", "topic", "explode")
	c.fails("UNKNOWN_TOPIC_OR_PARTITION", "topic", "describe", "nosuch")
	c.fails("UNKNOWN_TOPIC_OR_PARTITION", "bucket", "cat", "nosuch")
	c.fails("which bucket?", "bucket", "fsck", "--object-store", "")
	status, _, errs := c.run("", "topic", "describe", "orders", "--http", "127.0.0.1:1")
	if status != 0 || !strings.Contains(errs, "tiered bytes of orders are unknown") {
		t.Errorf("without HTTP: status %d, %q", status, errs)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("condition not reached")
		}
	}
}
