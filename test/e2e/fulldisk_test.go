package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// TestFullDisk fills the data disk under a running broker, a tmpfs of its own mount namespace: produce is refused with Kafka's
// storage error, /readyz says why, reads go on, and so does produce once there is room. Nothing acknowledged is lost.
func TestFullDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n, err := proc.NewNode(varve, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(n.DataDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	n.Memory, n.Sets = "64MiB", []string{smallReserve}
	ownDisk(n)
	t.Cleanup(func() { _ = n.Close() })
	boot(t, n)
	cl := client(t, n, kgo.DefaultProduceTopic("full"), kgo.DisableIdempotentWrite(), kgo.RecordRetries(1), kgo.ProducerBatchCompression(kgo.NoCompression()))
	keep := map[string]*string{"remote.storage.enable": kadm.StringPtr("false"), "retention.ms": kadm.StringPtr("-1")}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, keep, "full"); err != nil {
		t.Fatal(err)
	}
	acked := 0
	put := func() error {
		err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(acked, strings.Repeat("x", 10_000)))).FirstErr()
		if err == nil {
			acked++
		}
		return err
	}
	for range 200 {
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
	empty := fillDisk(t, n)
	await(t, ctx, "produce is refused", func() bool { return errors.Is(put(), kerr.KafkaStorageError) })
	if status, body := readyz(t, n); status != http.StatusServiceUnavailable || !strings.Contains(body, "full") {
		t.Errorf("/readyz of a full disk: %d %q", status, body)
	}
	if got := readAll(ctx, t, n, acked); got != acked {
		t.Errorf("%d records are read while the disk is full, %d were acknowledged", got, acked)
	}
	empty()
	await(t, ctx, "produce goes on", func() bool { return put() == nil })
	if status, body := readyz(t, n); status != http.StatusOK {
		t.Errorf("/readyz after there is room: %d %q", status, body)
	}
	if got := readAll(ctx, t, n, acked); got != acked {
		t.Errorf("%d records are read in the end, %d were acknowledged", got, acked)
	}
}

// A broker of a cluster whose disk is full keeps neither a leadership nor its place in the ISRs, so produce goes on everywhere; with room
// it gets its share back.
func TestFullDiskLeadsNothing(t *testing.T) {
	dir := t.TempDir()
	c, err := proc.NewCluster(t.Context(), proc.ClusterOptions{
		Bin: varve, Dir: dir, Places: proc.Loopback(3), Bucket: "dir://" + filepath.Join(dir, "bucket"), Memory: "64MiB",
		Sets:  []string{smallReserve, "leader.imbalance.check.interval.seconds=1"},
		Extra: func(n *proc.Node) error { ownDisk(n); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := errors.Join(c.Start(t.Context()), c.Ready(t.Context())); err != nil {
		t.Fatal(err)
	}
	cl := connect(t, c, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	createReplicated(t, cl, "t", 6)
	produceNumbers(t, cl, "t", 0, 1000)
	full := c.Nodes[1]
	holds := func() (leads, inSync int) {
		m, err := kadm.NewClient(cl).Metadata(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Topics["t"].Partitions {
			if p.Leader == full.ID {
				leads++
			}
			if slices.Contains(p.ISR, full.ID) {
				inSync++
			}
		}
		return leads, inSync
	}
	share := func() bool { leads, inSync := holds(); return leads == 2 && inSync == 6 }
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	await(t, ctx, "the broker leads its share", share)
	empty := fillDisk(t, full)
	await(t, ctx, "the broker leads nothing", func() bool { leads, inSync := holds(); return leads == 0 && inSync == 0 })
	produceNumbers(t, cl, "t", 1000, 2000)
	if low, err := deleteRecords(t, cl, 1, 30_000); low != 1 || err != nil { // which is how an operator makes room
		t.Errorf("low watermark %d, %v", low, err)
	}
	empty()
	await(t, ctx, "the broker leads its share again", share)
	produceNumbers(t, cl, "t", 2000, 3000)
	readNumbers(t, connect(t, c, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), 3000-1)
}

const smallReserve = "varve.disk.reserve.bytes=67108864"

// ownDisk gives a broker's data directory, which exists, a disk of 400 MB: a tmpfs in a mount namespace of the broker's.
func ownDisk(n *proc.Node) {
	n.Prefix = []string{"unshare", "--map-root-user", "--mount", "sh", "-c", `mount -t tmpfs -o size=400m tmpfs "$0" && exec "$@"`, n.DataDir()}
}

// fillDisk leaves less than the reserve on the disk of a broker that runs. The data directory itself is hidden from us.
func fillDisk(t *testing.T, n *proc.Node) (empty func()) {
	t.Helper()
	filler := filepath.Join("/proc", fmt.Sprint(n.Pid()), "root", n.DataDir(), "filler")
	if err := os.WriteFile(filler, make([]byte, 330<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

func await(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func readyz(t *testing.T, n *proc.Node) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + n.HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// readAll reads the topic from its start up to want records and checks their order.
func readAll(ctx context.Context, t *testing.T, n *proc.Node, want int) (got int) {
	t.Helper()
	cl := client(t, n, kgo.ConsumeTopics("full"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	for got < want && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if !strings.HasPrefix(string(r.Value), fmt.Sprint(got, "x")) {
				t.Errorf("offset %d holds %.10s, want %d", r.Offset, r.Value, got)
			}
			got++
		})
	}
	return got
}
