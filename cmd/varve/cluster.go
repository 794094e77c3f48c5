package main

import (
	"github.com/spf13/cobra"
)

func newClusterCommand(a *app) *cobra.Command {
	return noun("cluster", "Look at the cluster as a whole, change its voters and its controller",
		newClusterDescribe(a), newClusterStatus(a), newAddVoter(a), newRemoveVoter(a), newReplaceVoter(a), newMoveController(a))
}
