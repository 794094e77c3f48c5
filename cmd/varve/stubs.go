package main

import "github.com/spf13/cobra"

func newProduceCommand(a *app) *cobra.Command { return noun("produce", "") }
func newConsumeCommand(a *app) *cobra.Command { return noun("consume", "") }
func newBucketCommand(a *app) *cobra.Command  { return noun("bucket", "") }
func newSegmentCommand(a *app) *cobra.Command { return noun("segment", "") }
