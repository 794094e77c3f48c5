package main

import (
	"github.com/spf13/cobra"
)

func newSegmentCommand(a *app) *cobra.Command {
	return noun("segment", "Look into the segment objects of a bucket", newSegmentInspect(a))
}
