package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
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
	data := filepath.Join(n.Dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	n.Memory, n.Sets = "64MiB", []string{"varve.disk.reserve.bytes=67108864"}
	n.Prefix = []string{"unshare", "--map-root-user", "--mount", "sh", "-c", `mount -t tmpfs -o size=400m tmpfs "$0" && exec "$@"`, data}
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
	filler := filepath.Join("/proc", fmt.Sprint(n.Pid()), "root", data, "filler")
	if err := os.WriteFile(filler, make([]byte, 330<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "produce is refused", func() bool { return errors.Is(put(), kerr.KafkaStorageError) })
	if status, body := readyz(t, n); status != http.StatusServiceUnavailable || !strings.Contains(body, "full") {
		t.Errorf("/readyz of a full disk: %d %q", status, body)
	}
	if got := readAll(ctx, t, n, acked); got != acked {
		t.Errorf("%d records are read while the disk is full, %d were acknowledged", got, acked)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "produce goes on", func() bool { return put() == nil })
	if status, body := readyz(t, n); status != http.StatusOK {
		t.Errorf("/readyz after there is room: %d %q", status, body)
	}
	if got := readAll(ctx, t, n, acked); got != acked {
		t.Errorf("%d records are read in the end, %d were acknowledged", got, acked)
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
