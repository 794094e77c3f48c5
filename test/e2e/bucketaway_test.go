package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// TestDirectoryBucketAway moves a broker's directory bucket away while it runs, and starts the broker with a file and with an
// empty directory in its place. It serves (I13), takes nothing else for its bucket, and goes on once the bucket is back.
func TestDirectoryBucketAway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n := start(t, "varve.tiering.max.lag.ms=200")
	bucket := filepath.Join(n.Dir, "data", "bucket")
	cl := client(t, n, kgo.DefaultProduceTopic("t"))
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, map[string]*string{"local.retention.bytes": kadm.StringPtr("0")}, "t"); err != nil {
		t.Fatal(err)
	}
	total := 0
	produce := func() {
		t.Helper()
		for range 100 {
			if err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(total))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			total++
		}
	}
	consume := func(from int) {
		t.Helper()
		c := client(t, n, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(int64(from))}}))
		for next := from; next < total; {
			fs := c.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("read up to %d of %d records: %v", next, total, fs.Errors())
			}
			fs.EachRecord(func(r *kgo.Record) {
				if string(r.Value) != fmt.Sprint(next) {
					t.Fatalf("offset %d holds %s, want %d", r.Offset, r.Value, next)
				}
				next++
			})
		}
	}
	tiered := func() bool {
		topic, err := n.Topic(ctx, "t")
		return err == nil && topic.Partitions[0].TieredEndOffset == int64(total) && topic.Partitions[0].HotBytes == 0
	}
	complains := func(times int) {
		t.Helper()
		await(t, ctx, "the broker says what is wrong", func() bool { return complaints(t, n) >= times })
	}
	produce()
	await(t, ctx, "everything is tiered", tiered)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	check(os.Rename(bucket, bucket+".away"))
	produce()
	consume(100)
	complains(1)
	if _, err := os.Stat(bucket); err == nil {
		t.Fatal("the bucket was made anew")
	}

	check(n.End(syscall.SIGTERM))
	check(os.WriteFile(bucket, nil, 0o644))
	boot(t, n)
	complains(2)
	produce()
	consume(100)

	check(n.End(syscall.SIGTERM))
	check(os.Remove(bucket))
	check(os.Mkdir(bucket, 0o755))
	boot(t, n)
	complains(3)
	produce()
	consume(100)
	if files, err := os.ReadDir(bucket); err != nil || len(files) > 0 {
		t.Fatalf("in the empty directory: %v, %v", files, err)
	}

	check(os.Remove(bucket))
	check(os.Rename(bucket+".away", bucket))
	await(t, ctx, "everything is tiered", tiered)
	consume(0)
	if out, err := n.Fsck(); err != nil {
		t.Fatalf("fsck: %v\n%s", err, out)
	}
}

// complaints counts the broker's errors about its bucket, over all its starts.
func complaints(t *testing.T, n *proc.Node) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Dir, "broker.log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "the bucket is not available")
}
