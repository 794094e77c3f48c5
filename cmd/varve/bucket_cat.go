package main

import (
	"bufio"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

func newBucketCat(a *app) *cobra.Command {
	var (
		url, from, separator string
		limit                int64
		raw                  bool
		o                    tiering.CatOptions
	)
	c := &cobra.Command{
		Use:   "cat TOPIC",
		Short: "Print the records of a partition from the bucket, without a cluster",
		Example: `  varve bucket cat orders --partition 0 --object-store dir:///var/lib/varve/bucket
  varve bucket cat orders --partition 3 --from 2026-11-01T00:00:00Z --output json --object-store s3://logs`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pos, err := parsePosition(from)
			if err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			if pos.kind == atEnd {
				return errors.New("--from end: a bucket has no end to wait at; give an offset, a time or beginning")
			}
			o.Topic, o.FromOffset = args[0], base.Offset(pos.offset)
			if o.ByTime = pos.kind == atTime; o.ByTime {
				o.FromTimeMs = pos.time.UnixMilli()
			}
			out := bufio.NewWriterSize(a.out, 64<<10)
			printer := recordPrinter{w: out, json: a.output == "json", raw: raw, separator: separator}
			left := limit
			err = a.withBucket(cmd.Context(), url, func(b objstore.Bucket) error {
				return tiering.Cat(cmd.Context(), b, o, func(batch record.Batch, r record.Record) error {
					if batch.IsControl() {
						return nil
					}
					if err := printer.print(tieredRecord(o, batch, r)); err != nil {
						return err
					}
					if left--; left == 0 {
						return tiering.ErrStop
					}
					return nil
				})
			})
			return errors.Join(err, out.Flush())
		},
	}
	a.bucketFlag(c, &url)
	c.Flags().Int32VarP(&o.Partition, "partition", "p", 0, "partition")
	c.Flags().StringVarP(&from, "from", "f", "beginning", "beginning, an offset, or a time (RFC 3339, or a duration ago such as -1h)")
	c.Flags().Int64VarP(&limit, "max", "n", 0, "stop after so many records (0: no limit)")
	c.Flags().StringVarP(&separator, "key-separator", "k", "", "print the key and this before the value")
	c.Flags().BoolVar(&raw, "raw", false, "print values back to back, without a line end")
	return c
}

// tieredRecord shows a record of a segment as a consumer would have got it.
func tieredRecord(o tiering.CatOptions, b record.Batch, r record.Record) *kgo.Record {
	k := &kgo.Record{
		Topic: o.Topic, Partition: o.Partition, Offset: int64(r.Offset), LeaderEpoch: int32(b.LeaderEpoch()),
		Timestamp: time.UnixMilli(r.Timestamp), Key: r.Key, Value: r.Value,
	}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return k
}
