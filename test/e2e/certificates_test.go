package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/authority"
	"github.com/varvelog/varve/internal/testutil/proc"
)

// Three voters with certificates for etcd's connections, one of them after its certificate was replaced; strangers are told why they
// are not let in, in place of waiting.
func TestClusterWithCertificates(t *testing.T) {
	ours := authority.New(t)
	issue := func(a *authority.Authority) []string {
		cert, key := a.Issue("node", 1)
		return []string{"--etcd-cert-file", cert, "--etcd-key-file", key, "--etcd-ca-file", a.Path()}
	}
	dir := t.TempDir()
	c, err := proc.NewCluster(t.Context(), proc.ClusterOptions{
		Bin: varve, Dir: dir, Places: proc.Loopback(4), Bucket: "dir://" + filepath.Join(dir, "bucket"), Memory: "256MiB",
		Extra: func(n *proc.Node) error { n.Args = append(n.Args, issue(ours)...); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Start(t.Context()); err != nil { // three voters, and one that is not
		t.Fatal(err)
	}
	cl := connect(t, c, kgo.RequiredAcks(kgo.AllISRAcks()))
	createReplicated(t, cl, "t", 6)
	produceNumbers(t, cl, "t", 0, 500)

	ours.Issue("node", 2)
	if err := c.Node(3).End(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	boot(t, c.Node(3))
	if err := c.Node(1).Kill9(); err != nil {
		t.Fatal(err)
	}
	boot(t, c.Node(1))
	produceNumbers(t, cl, "t", 500, 1000)
	inSync(t, cl, 3)
	readNumbers(t, connect(t, c, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), 1000)

	stranger := c.Node(4)
	if err := stranger.End(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var voters string
	for i, arg := range stranger.Args {
		if arg == "--voters" {
			voters = stranger.Args[i+1]
		}
	}
	for what, certificate := range map[string][]string{
		"it asks for a certificate, this node has none": nil,
		"this node does not trust its certificate":      issue(authority.New(t)),
	} {
		args := []string{"serve", "--node-id", "9", "--voters", voters, "--kafka-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
			"--data-dir", t.TempDir(), "--object-store", stranger.Bucket}
		out, err := exec.CommandContext(t.Context(), varve, append(args, certificate...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), what) {
			t.Errorf("a stranger, %v, is not told %q:\n%s", err, what, out)
		}
	}
}
