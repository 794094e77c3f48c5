package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
)

// The demo's log: small segments and a small hot part, so that 200 MB are enough to see all of the tiers.
const (
	topic           = "go-sources"
	partitions      = 4
	segmentBytes    = 8 << 20
	localBytes      = 8 << 20 // of each partition stay hot
	maxLag          = 2 * time.Second
	wholeTimeout    = 5 * time.Minute
	tieredTimeout   = 2 * time.Minute
	stopTimeout     = 10 * time.Second
	defaultMB       = 220
	bytesPerMB      = 1_000_000
	retentionChecks = time.Second
)

func main() {
	varve := flag.String("varve", "bin/varve", "the binary to show")
	mb := flag.Int64("mb", defaultMB, "how much to produce, in MB of lines")
	dir := flag.String("dir", "", "folder for the broker's data (default: a temporary one, removed at the end)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, wholeTimeout, fmt.Errorf("the demo has taken more than %s", wholeTimeout))
	defer cancel()
	if err := demo(ctx, *varve, *dir, *mb*bytesPerMB); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(cause, err)
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, binary, dir string, wantBytes int64) (err error) {
	varve, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "varve-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	began := time.Now()
	b, err := proc.StartVarve(ctx, proc.VarveOptions{Binary: varve, Dir: dir, Set: map[string]string{
		"log.segment.bytes": strconv.Itoa(segmentBytes), "log.retention.check.interval.ms": strconv.FormatInt(retentionChecks.Milliseconds(), 10),
		"varve.tiering.max.lag.ms": strconv.FormatInt(maxLag.Milliseconds(), 10),
	}})
	if err != nil {
		return err
	}
	say("broker", "ready after %.1f s: Kafka on %s, HTTP on %s, bucket %s", time.Since(began).Seconds(), b.KafkaAddr, b.HTTPAddr, b.Bucket)
	if err := show(ctx, varve, b, wantBytes); err != nil {
		return errors.Join(err, b.Kill())
	}
	stopping := time.Now()
	if err := b.Stop(stopTimeout); err != nil {
		return err
	}
	say("stop", "SIGTERM, exit status 0 after %.1f s; the whole demo took %.0f s", time.Since(stopping).Seconds(), time.Since(began).Seconds())
	return nil
}

// show is the job itself, on a running broker.
func show(ctx context.Context, varve string, b *proc.Process, wantBytes int64) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.KafkaAddr))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	segment, local, largest := strconv.Itoa(segmentBytes), strconv.Itoa(localBytes), strconv.Itoa(maxBatchBytes)
	settings := map[string]*string{"segment.bytes": &segment, "local.retention.bytes": &local, "max.message.bytes": &largest}
	if _, err := adm.CreateTopic(ctx, partitions, 1, settings, topic); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	say("topic", "%s: %d partitions, segments of %d MiB, %d MiB of each partition stay hot", topic, partitions, segmentBytes>>20, localBytes>>20)

	in, err := findInput()
	if err != nil {
		return err
	}
	want, err := produceAll(ctx, b.KafkaAddr, topic, partitions, in, wantBytes)
	if err != nil {
		return err
	}
	say("produce", "%d lines of %d Go source files, %.0f MB (%.0f MB with keys) in %.1f s: %.0f MB/s, every one acknowledged on disk",
		want.records(), in.files, mb(want.bytes), mb(want.keyed), want.took.Seconds(), mb(want.keyed)/want.took.Seconds())

	waiting := time.Now()
	tiers, err := awaitTiered(ctx, varve, b, topic, tieredTimeout)
	if err != nil {
		return err
	}
	say("tiering", "all of it sealed and in the bucket, the hot part trimmed, %.1f s after the last acknowledgement", time.Since(waiting).Seconds())

	took, err := readBack(ctx, b.KafkaAddr, topic, want)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	say("read", "all %d records back from offset 0 in %.1f s (%.0f MB/s): every offset once, in order, hash chains equal", want.records(), took.Seconds(), mb(want.keyed)/took.Seconds())

	cold, hot, err := lookups(ctx, adm, topic, want, tiers)
	if err != nil {
		return err
	}
	say("timestamps", "%d looked up in the cold part and %d in the hot one, all exact", cold, hot)
	if err := fsck(ctx, varve, b.Bucket); err != nil {
		return err
	}
	return printTiers(tiers)
}

func fsck(ctx context.Context, varve, bucket string) error {
	out, err := exec.CommandContext(ctx, varve, "bucket", "fsck", "--object-store", bucket, "--output", "json").Output()
	if err != nil {
		return fmt.Errorf("varve bucket fsck: %w: %s", err, out)
	}
	var r struct{ Objects, Bytes, Missing, Corrupt, Orphans int64 }
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("varve bucket fsck: %w", err)
	}
	say("fsck", "%d objects, %.0f MB: %d missing, %d corrupt, %d orphans", r.Objects, mb(r.Bytes), r.Missing, r.Corrupt, r.Orphans)
	return nil
}

func printTiers(tiers []partitionTiers) error {
	fmt.Println("\nWhat is where:")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partition\trecords\ttiered up to\thot from\thot MB\ttiered MB\tobjects\t")
	var sum partitionTiers
	for _, t := range tiers {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%.1f\t%.1f\t%d\t\n", t.Partition, t.HighWatermark-t.LogStartOffset, t.TieredEndOffset, t.HotStartOffset, mb(t.HotBytes), mb(t.TieredBytes), t.TieredObjects)
		sum.HighWatermark += t.HighWatermark - t.LogStartOffset
		sum.HotBytes += t.HotBytes
		sum.TieredBytes += t.TieredBytes
		sum.TieredObjects += t.TieredObjects
	}
	fmt.Fprintf(w, "all\t%d\t\t\t%.1f\t%.1f\t%d\t\n", sum.HighWatermark, mb(sum.HotBytes), mb(sum.TieredBytes), sum.TieredObjects)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Println("(compacted: nothing yet, compaction of keys comes with a later release)")
	fmt.Println()
	return nil
}

func mb(n int64) float64 { return float64(n) / bytesPerMB }

func say(step, format string, args ...any) {
	fmt.Printf("%-11s "+format+"\n", append([]any{step}, args...)...)
}
