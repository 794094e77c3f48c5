package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// refused runs a broker that must end by itself with a message.
func refused(t *testing.T, want string, args ...string) {
	t.Helper()
	args = append([]string{"serve", "--kafka-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"}, args...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, varve, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("serve %v: %v, does not say %q:\n%s", args, err, want, out)
	}
}

// identify writes whose data a directory holds.
func identify(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Who does not belong to the cluster is told so before it changes anything, and those that do are not disturbed.
func TestStrangersAreRefused(t *testing.T) {
	dir := t.TempDir()
	c, err := proc.NewCluster(t.Context(), proc.ClusterOptions{
		Bin: varve, Dir: dir, Places: proc.Loopback(4), Bucket: "dir://" + filepath.Join(dir, "bucket"), Memory: "256MiB",
		Sets: []string{"broker.session.timeout.ms=3000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	cl := connect(t, c)
	createReplicated(t, cl, "t", 4)
	produceNumbers(t, cl, "t", 0, 100)
	fourth := c.Node(4) // no voter: etcd does not know it
	join := append([]string{"--object-store", fourth.Bucket}, fourth.Args...)

	twin := append([]string{"--data-dir", t.TempDir(), "--set", "broker.session.timeout.ms=3000"}, join...)
	refused(t, "broker 4 is registered at "+fourth.Kafka+" and alive", twin...)
	if !fourth.Running() {
		t.Fatalf("the twin ended the one that was there\n%s", fourth.LogTail())
	}

	data := t.TempDir()
	identify(t, data, `{"version":1,"cluster":"another-cluster-000000","node":4}`)
	refused(t, "is of cluster another-cluster-000000, the voters are of cluster", append([]string{"--data-dir", data}, join...)...)
	identify(t, data, `{"version":1,"cluster":"another-cluster-000000","node":5}`)
	refused(t, "is that of broker 5, this is --node-id 4", append([]string{"--data-dir", data}, join...)...)
	identify(t, data, `{"version":2}`)
	refused(t, "it is of version 2", append([]string{"--data-dir", data}, join...)...)

	// A voter with an empty etcd directory is not even made a member.
	third := c.Node(3)
	if err := third.End(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := third.Wipe(); err != nil {
		t.Fatal(err)
	}
	identify(t, third.DataDir(), `{"version":1,"cluster":"another-cluster-000000","node":3}`)
	if err := third.Start(); err != nil {
		t.Fatal(err)
	}
	<-third.Exited()
	if tail := third.LogTail(); !strings.Contains(tail, "start etcd: this broker does not belong to this cluster") {
		t.Errorf("a voter with another cluster's data is not refused by what it reads before it joins:\n%s", tail)
	}
	if err := third.Wipe(); err != nil {
		t.Fatal(err)
	}
	boot(t, third)

	// Another cluster is kept out of the bucket, and may have its own afterwards.
	n, err := proc.NewNode(varve, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	n.Bucket, n.Memory = fourth.Bucket, "256MiB"
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	<-n.Exited()
	if tail := n.LogTail(); !strings.Contains(tail, "the bucket belongs to another cluster") {
		t.Errorf("another cluster is let into the bucket:\n%s", tail)
	}
	n.Bucket = ""
	boot(t, n)

	// A process that was killed does not keep its id.
	if err := fourth.Kill9(); err != nil {
		t.Fatal(err)
	}
	boot(t, fourth)
	if log, err := os.ReadFile(filepath.Join(fourth.Dir, "broker.log")); err != nil || bytes.Contains(log, []byte("another process is alive")) {
		t.Errorf("the broker waited for the end of the one that was killed: %v\n%s", err, fourth.LogTail())
	}
	produceNumbers(t, cl, "t", 100, 200)
	inSync(t, cl, 3)
}
