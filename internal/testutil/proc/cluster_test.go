package proc

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the brokers of these tests: `serve` answers /readyz until SIGTERM, as varve does, and `parent DIR` starts one and
// waits for ever.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		fakeBroker(os.Args[2:])
	}
	if len(os.Args) > 2 && os.Args[1] == "parent" {
		abandon(os.Args[2])
	}
	os.Exit(m.Run())
}

func fakeBroker(args []string) {
	fl := flag.NewFlagSet("serve", flag.ExitOnError)
	at := fl.String("http-addr", "", "")
	for _, name := range []string{"data-dir", "kafka-addr", "etcd-peer-addr", "etcd-client-addr", "node-id", "voters", "rack", "object-store"} {
		fl.String(name, "", "")
	}
	_ = fl.Parse(args) // ends the process
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() { <-end; os.Exit(0) }()
	fmt.Println(http.ListenAndServe(*at, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	os.Exit(1)
}

func abandon(dir string) {
	n, err := NewNode(os.Args[0], dir)
	if err == nil {
		err = n.Start()
	}
	if err == nil {
		err = n.Ready(context.Background())
	}
	if err == nil {
		fmt.Println(n.Pid())
	}
	select {}
}

func newCluster(t *testing.T, o ClusterOptions) *Cluster {
	t.Helper()
	o.Bin, o.Dir = os.Args[0], t.TempDir()
	c, err := NewCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestClusterKnowsItself(t *testing.T) {
	c := newCluster(t, ClusterOptions{Places: Loopback(4), Racks: []string{"a", "b"}, Bucket: "s3://b/p?x=y"})
	voters := fmt.Sprintf("1@%s,2@%s,3@%s", c.Nodes[0].etcdPeer, c.Nodes[1].etcdPeer, c.Nodes[2].etcdPeer)
	for i, n := range c.Nodes {
		want := []string{"--node-id", strconv.Itoa(i + 1), "--voters", voters}
		if i < 2 {
			want = append(want, "--rack", string(rune('a'+i)))
		}
		if !slices.Equal(n.Args, want) || n.Bucket != "s3://b/p?x=y" {
			t.Errorf("node %d: %q %s", n.ID, n.Args, n.Bucket)
		}
	}
	c = newCluster(t, ClusterOptions{Places: Loopback(2), Alone: true, Bucket: "s3://b/p?x=y"})
	if n := c.Node(2); len(n.Args) > 0 || n.Bucket != "s3://b/p/alone2?x=y" {
		t.Errorf("a node alone: %q %s", n.Args, n.Bucket)
	}
}

// TestLifeOfANode goes once through everything that a torture does to a process.
func TestLifeOfANode(t *testing.T) {
	c := newCluster(t, ClusterOptions{Places: Loopback(3)})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Start(t.Context()))
	n := c.Node(2)
	first := n.Pid()
	must(os.WriteFile(filepath.Join(n.DataDir(), "x"), nil, 0o644))
	if err := n.Wipe(); err == nil {
		t.Error("the disk of a running broker was wiped")
	}
	must(n.Pause())
	if state := stateOf(t, n.Pid()); state != "T" {
		t.Errorf("a paused process is in state %s", state)
	}
	must(n.Cont())
	must(n.Ready(t.Context()))
	must(n.Restart())
	must(n.Ready(t.Context()))
	if n.Pid() == first {
		t.Error("a restart kept the process")
	}
	must(n.Pause())
	must(n.Kill9())
	if n.Running() || n.Kill9() == nil {
		t.Error("a dead broker runs, or can be killed")
	}
	must(n.Wipe())
	if left, err := os.ReadDir(n.DataDir()); err != nil || len(left) > 0 {
		t.Errorf("%d entries are on a wiped disk (%v)", len(left), err)
	}
	must(n.Start())
	must(c.Ready(t.Context()))
	must(c.Node(1).Pause())
	must(c.Stop()) // also what is paused
}

// stateOf reads the one letter of /proc that ps shows; the kernel stops a process a moment after the signal.
func stateOf(t *testing.T, pid int) (state string) {
	t.Helper()
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Skip("no /proc:", err)
		}
		if state = strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]; state == "T" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return state
}

// TestNoOrphans kills the process that started a broker: the broker ends too.
func TestNoOrphans(t *testing.T) {
	if dieWithParent() == nil {
		t.Skip("this system has no signal for it")
	}
	parent := exec.Command(os.Args[0], "parent", t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	for syscall.Kill(pid, 0) == nil && stateOfOrZombie(pid) != "Z" {
		if t.Context().Err() != nil {
			t.Fatal("the broker outlives its parent")
		}
		time.Sleep(time.Millisecond)
	}
}

// stateOfOrZombie is Z also where the process is gone.
func stateOfOrZombie(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "Z"
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

func TestOrphanedDisks(t *testing.T) {
	mounts := "proc /proc proc rw 0 0\nvarve-disk-7 /a tmpfs rw 0 0\nvarve-disk-8 /b tmpfs rw 0 0\nvarve-disk-x /c tmpfs rw 0 0\ntmpfs /d tmpfs rw 0 0\n"
	if got := orphanedDisks(mounts, func(pid int) bool { return pid == 8 }); !slices.Equal(got, []string{"/a"}) {
		t.Errorf("orphaned: %q", got)
	}
}

func TestSmallDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	n, err := NewNode(os.Args[0], t.TempDir())
	if err == nil {
		err = os.Mkdir(n.DataDir(), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	var d SmallDisks
	if err := d.Mount(n, 8<<20); err != nil {
		t.Skip(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := d.Fill(n, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.DataDir(), "y"), make([]byte, 2<<20), 0o644); err == nil {
		t.Error("2 MiB fit into 1 MiB")
	}
	if err := d.Free(n); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.DataDir(), "y"), make([]byte, 2<<20), 0o644); err != nil {
		t.Error(err)
	}
}
