package main

import "github.com/spf13/cobra"

func newBucketCommand(a *app) *cobra.Command  { return noun("bucket", "") }
func newSegmentCommand(a *app) *cobra.Command { return noun("segment", "") }
