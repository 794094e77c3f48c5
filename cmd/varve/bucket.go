package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/open"
)

func newBucketCommand(a *app) *cobra.Command {
	return noun("bucket", "Look at a bucket, without a cluster", newBucketFsck(a), newBucketList(a), newBucketCat(a))
}

// bucketFlag adds --object-store.
func (a *app) bucketFlag(c *cobra.Command, url *string) {
	c.Flags().StringVar(url, "object-store", a.getenv("VARVE_OBJECT_STORE"),
		"dir:///path or s3://bucket/prefix?endpoint=http://host:port&region=us-east-1&path-style=true (VARVE_OBJECT_STORE)")
}

// withBucket opens the bucket for a function that reads it.
func (a *app) withBucket(ctx context.Context, url string, do func(objstore.Bucket) error) error {
	if url == "" {
		return fmt.Errorf("which bucket? Give --object-store URL, as to varve serve; its default there is dir://DATA_DIR/bucket")
	}
	logger := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := open.Open(ctx, url, open.Options{Clock: clock.Real{}, Logger: logger})
	if err != nil {
		return fmt.Errorf("open %s: %w", url, err)
	}
	defer func() { _ = b.Close() }() // nothing was written
	return do(b)
}
