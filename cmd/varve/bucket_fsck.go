package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
)

// defaultGrace is varve.gc.grace.ms's default: what nothing names for less is work in progress.
const defaultGrace = 5 * time.Minute

func newBucketFsck(a *app) *cobra.Command {
	var (
		url string
		o   tiering.FsckOptions
	)
	c := &cobra.Command{
		Use:   "fsck",
		Short: "Read a whole bucket and recompute every checksum, index and manifest",
		Long: `Read the bucket alone, beside a live cluster or without one, and recompute everything. Missing are objects that a manifest
names and that are not there, corrupt those whose bytes differ, orphans those that nothing names for longer than --grace.
Exits 0 only where there are none of the three.`,
		Example: `  varve bucket fsck --object-store dir:///var/lib/varve/bucket
  varve bucket fsck --object-store 's3://logs?endpoint=http://127.0.0.1:9000' --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withBucket(cmd.Context(), url, func(b objstore.Bucket) error {
				o.Now = time.Now()
				r, err := tiering.Fsck(cmd.Context(), b, o)
				if err != nil {
					return err
				}
				return a.printFsck(r)
			})
		},
	}
	a.bucketFlag(c, &url)
	c.Flags().DurationVar(&o.Grace, "grace", defaultGrace, "how long an object that nothing names counts as work in progress")
	c.Flags().IntVar(&o.Parallel, "parallel", 0, "segments that are read at the same time, each in memory as a whole (0: 2)")
	return c
}

func (a *app) printFsck(r tiering.Report) error {
	t := table{}
	t.add("objects", r.Objects)
	t.add("bytes", r.Bytes)
	t.add("partitions", r.Logs)
	t.add("segments", r.Segments)
	t.add("missing", r.Missing)
	t.add("corrupt", r.Corrupt)
	t.add("orphans", r.Orphans)
	t.add("orphan bytes", r.OrphanBytes)
	t.add("in progress", r.InGrace)
	if err := a.print(r, t); err != nil {
		return err
	}
	for kind, problems := range map[string][]tiering.Problem{"missing": r.MissingDetails, "corrupt": r.CorruptDetails, "orphan": r.OrphanDetails} {
		for _, p := range problems {
			a.warn("%s: %v", kind, p)
		}
	}
	if !r.Clean() {
		return errReported
	}
	return nil
}
