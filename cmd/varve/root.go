package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// errReported ends a command with status 1 where the output has already said what is wrong.
var errReported = errors.New("reported")

// Defaults of the flags that every command has (contract.md).
const (
	defaultBootstrap = "127.0.0.1:9092"
	defaultHTTP      = "127.0.0.1:8080"
	defaultTimeout   = 30 * time.Second
)

// app is one run of the program: the common flags and where input comes from and output goes. Not safe for concurrent use.
type app struct {
	getenv    func(string) string
	in        io.Reader
	out, err  io.Writer
	bootstrap string
	httpAddr  string
	output    string
	timeout   time.Duration
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "varve",
		Short:         "A log that speaks Kafka: hot in Pebble, cold in a bucket",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "table" && a.output != "json" {
				return fmt.Errorf("--output %q: choose table or json", a.output)
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.bootstrap, "bootstrap", "b", a.env("VARVE_BOOTSTRAP", defaultBootstrap), "brokers to ask first, host:port[,host:port...] (VARVE_BOOTSTRAP)")
	f.StringVar(&a.httpAddr, "http", a.env("VARVE_HTTP", defaultHTTP), "HTTP address of a broker (VARVE_HTTP)")
	f.StringVarP(&a.output, "output", "o", "table", "table or json")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "how long an administrative command may take")
	root.AddCommand(
		newServeCommand(),
		newTopicCommand(a), newGroupCommand(a), newProduceCommand(a), newConsumeCommand(a), newConfigCommand(a),
		newBrokerCommand(a), newClusterCommand(a), newBucketCommand(a), newSegmentCommand(a), newBenchCommand(a),
	)
	return root
}

// env is the value of an environment variable, or what to take where it is unset.
func (a *app) env(name, otherwise string) string {
	if v := a.getenv(name); v != "" {
		return v
	}
	return otherwise
}

// noun builds a command that only groups others.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(verbs...)
	return c
}
