package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
)

type objectRow struct {
	Object   string `json:"object"`
	Kind     string `json:"kind"`
	Bytes    int64  `json:"bytes"`
	Modified string `json:"modified"`
}

func newBucketList(a *app) *cobra.Command {
	var url string
	c := &cobra.Command{
		Use:     "list [PREFIX]",
		Short:   "List objects, with what each is",
		Example: "  varve bucket list v1/segments/ --object-store dir:///var/lib/varve/bucket",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := ""
			if len(args) == 1 {
				prefix = args[0]
			}
			return a.withBucket(cmd.Context(), url, func(b objstore.Bucket) error {
				rows := []objectRow{}
				t := table{head: []string{"OBJECT", "KIND", "BYTES", "MODIFIED"}}
				for info, err := range b.List(cmd.Context(), prefix, "") {
					if err != nil {
						return err
					}
					r := objectRow{info.Key, tiering.ParseName(info.Key).Kind.String(), info.Size, info.ModTime.UTC().Format(time.RFC3339)}
					rows = append(rows, r)
					t.add(r.Object, r.Kind, r.Bytes, r.Modified)
				}
				return a.print(rows, t)
			})
		},
	}
	a.bucketFlag(c, &url)
	return c
}
