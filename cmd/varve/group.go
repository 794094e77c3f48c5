package main

import (
	"github.com/spf13/cobra"
)

func newGroupCommand(a *app) *cobra.Command {
	return noun("group", "Look at consumer groups and move their offsets",
		newGroupList(a), newGroupDescribe(a), newGroupOffsets(a), newGroupReset(a), newGroupDelete(a))
}
