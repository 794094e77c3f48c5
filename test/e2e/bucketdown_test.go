package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/internal/testutil/s3server"
)

// TestBucketDown starts a broker whose bucket does not answer: it serves (I13), stops in time, and offloads what it kept once
// the bucket is there.
func TestBucketDown(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n, err := proc.NewNode(varve, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	n.Memory, n.Sets = "512MiB", []string{"varve.tiering.max.lag.ms=200"}
	n.Bucket = "s3://bucketdown/p?endpoint=http://127.0.0.1:1&region=us-east-1&path-style=true"
	n.Env = []string{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}
	boot(t, n)
	cl := client(t, n, kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, map[string]*string{"local.retention.bytes": kadm.StringPtr("0")}, "t"); err != nil {
		t.Fatal(err)
	}
	const records = 100
	for i := range records {
		if err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for got := 0; got < records; {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records without a bucket", got, records)
		}
		got += fs.NumRecords()
	}
	begin := time.Now()
	if err := n.End(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM without a bucket: %v after %s", err, time.Since(begin))
	}
	s3, err := s3server.Launch(ctx, "minio", filepath.Join(t.TempDir(), "s3"))
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Stop()
	n.Bucket, n.Env = s3.BucketURL("bucketdown", "p"), s3.Env()
	boot(t, n)
	await(t, ctx, "everything is tiered", func() bool {
		topic, err := n.Topic(ctx, "t")
		return err == nil && topic.Partitions[0].TieredEndOffset == records && topic.Partitions[0].HotBytes == 0
	})
	if out, err := n.Fsck(); err != nil {
		t.Fatalf("fsck: %v\n%s", err, out)
	}
	again := client(t, n, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for got := 0; got < records; {
		fs := again.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records from the bucket", got, records)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if string(r.Value) != fmt.Sprint(got) {
				t.Errorf("offset %d holds %s", r.Offset, r.Value)
			}
			got++
		})
	}
}
