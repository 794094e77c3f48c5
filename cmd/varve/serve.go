package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		RunE:  func(*cobra.Command, []string) error { return errors.New("not wired yet") },
	}
}
