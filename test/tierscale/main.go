package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/internal/testutil/s3server"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/open"
	"github.com/varvelog/varve/tiering"
)

// report is what a run prints.
type report struct {
	Bytes          int64   `json:"bytes"`
	ProduceSeconds float64 `json:"produceSeconds"`
	ReadSeconds    float64 `json:"readSeconds"`
	HotDiskMax     int64   `json:"hotDiskMaxBytes"`
	HotBytesEnd    int64   `json:"hotBytesAtEnd"`
	LookUps        int     `json:"timestampsLookedUpTwice"`
	Fsck           string  `json:"fsck"`
	ObjectsBefore  int     `json:"objectsBeforeDeletion"`
	ObjectsAfter   int     `json:"objectsAfterDeletion"`
	DeleteSeconds  float64 `json:"deleteSeconds"`
}

func main() {
	var (
		bin        = flag.String("bin", "bin/varve", "the broker's binary")
		bytes      = flag.Int64("bytes", 3_000_000_000, "how much is written")
		partitions = flag.Int("partitions", 4, "of the topic")
		kind       = flag.String("s3", "minio", "minio or versitygw")
		rate       = flag.Float64("rate", 60e6, "bytes per second; what the S3 server cannot take stays hot until it can")
		hotLimit   = flag.Int64("hot-limit", 0, "bound of the hot store's disk use (0: local retention, twelve memtables, which is what Pebble's garbage takes (design section 4), and 128 MiB)")
	)
	flag.Parse()
	dir, err := os.MkdirTemp("", "varve-tierscale-")
	if err == nil {
		var r report
		r, err = run(*bin, dir, *kind, *bytes, *partitions, *hotLimit, *rate)
		out, _ := json.MarshalIndent(r, "", "  ")
		fmt.Println(string(out))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tierscale:", err, "\nthe data is in", dir)
		os.Exit(1)
	}
	_ = os.RemoveAll(dir)
}

const localRetention = 64 << 20

func run(bin, dir, kind string, bytes int64, partitions int, hotLimit int64, rate float64) (r report, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	s3, err := s3server.Launch(ctx, kind, filepath.Join(dir, "s3"))
	if err != nil {
		return r, err
	}
	defer s3.Stop()
	url := s3.BucketURL("tierscale", "p")
	n, err := proc.NewNode(bin, filepath.Join(dir, "broker"))
	if err != nil {
		return r, err
	}
	n.Bucket, n.Memory = url, "2GiB"
	n.Env = s3.Env()
	n.Sets = []string{"varve.scrub.interval.ms=5000", "varve.gc.grace.ms=1000"}
	if err := errors.Join(n.Start(), n.Ready(ctx)); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	bucket, err := open.Open(ctx, url, open.Options{AccessKey: s3.AccessKey, SecretKey: s3.SecretKey})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	if hotLimit == 0 {
		hotLimit = int64(partitions)*(localRetention+16<<20) + 12*(128<<20) + 128<<20
	}
	return check(ctx, n, bucket, bytes, partitions, hotLimit, rate)
}

func check(ctx context.Context, n *proc.Node, bucket objstore.Bucket, bytes int64, partitions int, hotLimit int64, rate float64) (r report, err error) {
	w, err := newWriter(n.Kafka, partitions, rate)
	if err != nil {
		return r, err
	}
	defer w.cl.Close()
	adm := kadm.NewClient(w.cl)
	configs := map[string]*string{
		"segment.bytes": kadm.StringPtr("16777216"), "local.retention.bytes": kadm.StringPtr(fmt.Sprint(localRetention)), "retention.ms": kadm.StringPtr("-1"),
	}
	if _, err := adm.CreateTopic(ctx, int32(partitions), 1, configs, topic); err != nil {
		return r, err
	}
	watch := watchDisk(filepath.Join(n.Dir, "data", "hot"))
	begin := time.Now()
	// The first 40 MB are all hot when they are looked up, and all cold at the end.
	if err := w.write(ctx, 40_000_000); err != nil {
		return r, err
	}
	early := w.chains[0].records
	var timestamps []int64
	for k := int64(0); k < 60; k++ {
		timestamps = append(timestamps, firstTs+k*early/60)
	}
	hot, err := lookUp(ctx, adm, timestamps)
	if err != nil {
		return r, err
	}
	if err := w.write(ctx, bytes-w.bytes); err != nil {
		return r, err
	}
	r.Bytes, r.ProduceSeconds = w.bytes, time.Since(begin).Seconds()
	if err := settle(ctx, n, &r, partitions); err != nil {
		return r, err
	}
	r.HotDiskMax = watch()
	if r.HotDiskMax > hotLimit {
		return r, fmt.Errorf("the hot store took %d bytes of disk, the bound is %d", r.HotDiskMax, hotLimit)
	}
	cold, err := lookUp(ctx, adm, timestamps)
	if err != nil {
		return r, err
	}
	r.LookUps = len(cold)
	for _, ts := range timestamps {
		for p := range partitions {
			at := fmt.Sprintf("%d@%d", ts, p)
			if want := firstAtOrAfter(ts, early); hot[at] != want || cold[at] != want {
				return r, fmt.Errorf("timestamp %s: hot answer %d, cold answer %d, want %d", at, hot[at], cold[at], want)
			}
		}
	}
	begin = time.Now()
	got, err := readBack(ctx, n.Kafka, w.chains)
	if err != nil {
		return r, err
	}
	r.ReadSeconds = time.Since(begin).Seconds()
	for p := range got {
		if got[p] != w.chains[p] {
			return r, fmt.Errorf("partition %d: the hash chain of %d records read differs from that of %d written", p, got[p].records, w.chains[p].records)
		}
	}
	if r.Fsck, err = n.Fsck(); err != nil {
		return r, fmt.Errorf("fsck: %w: %s", err, r.Fsck)
	}
	return r, deletion(ctx, n, adm, bucket, &r)
}

// settle waits until no partition keeps more hot than its local retention and what is not sealed.
func settle(ctx context.Context, n *proc.Node, r *report, partitions int) error {
	for {
		t, err := n.Topic(ctx, topic)
		if err != nil {
			return err
		}
		r.HotBytesEnd = 0
		for _, p := range t.Partitions {
			r.HotBytesEnd += p.HotBytes
		}
		if r.HotBytesEnd <= int64(partitions)*(localRetention+2*(16<<20)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d bytes stay hot: %w", r.HotBytesEnd, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// deletion deletes the topic and waits for an empty bucket.
func deletion(ctx context.Context, n *proc.Node, adm *kadm.Client, bucket objstore.Lister, r *report) error {
	var err error
	if r.ObjectsBefore, err = count(ctx, bucket); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := adm.DeleteTopic(ctx, topic); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if r.ObjectsAfter, err = count(ctx, bucket); err != nil {
			return fmt.Errorf("%d objects are left after the topic's deletion: %w", r.ObjectsAfter, err)
		}
		if r.ObjectsAfter == 0 {
			r.DeleteSeconds = time.Since(begin).Seconds()
			return n.End(syscall.SIGTERM)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func count(ctx context.Context, bucket objstore.Lister) (n int, err error) {
	for _, err := range bucket.List(ctx, tiering.Prefix, "") {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, ctx.Err()
}

// watchDisk samples what a directory occupies; the returned function ends it and answers the largest sample.
func watchDisk(dir string) func() int64 {
	var most atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			most.Store(max(most.Load(), diskUse(dir)))
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() int64 { close(done); <-ended; return most.Load() }
}

func diskUse(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					n += st.Blocks * 512
				}
			}
		}
		return nil // files come and go
	})
	return n
}
