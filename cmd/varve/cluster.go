package main

import (
	"github.com/spf13/cobra"
)

func newClusterCommand(a *app) *cobra.Command {
	return noun("cluster", "Look at the cluster as a whole", newClusterDescribe(a))
}
