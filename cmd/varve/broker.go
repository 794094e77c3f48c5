package main

import (
	"github.com/spf13/cobra"
)

func newBrokerCommand(a *app) *cobra.Command {
	return noun("broker", "Look at the brokers, empty them, forget dead ones", newBrokerList(a), newBrokerDrain(a), newBrokerUnregister(a))
}
