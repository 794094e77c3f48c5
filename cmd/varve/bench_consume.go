package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/varvelog/varve/cmd/varve/load"
)

type benchConsumed struct {
	load.Consumed
	throughput
	Broker *brokerCost `json:"broker,omitempty"`
}

func newBenchConsume(a *app) *cobra.Command {
	var o benchOptions
	var idle, expect = load.ConsumeOptions{}, int64(0)
	c := &cobra.Command{
		Use:   "consume",
		Short: "Read a topic from its first offset, check every record, and measure",
		Long: `Read every partition from its first offset to where it ends now, and check the stamps of varve bench produce. Fails where a
record is lost, duplicated, out of order or damaged, and, with --expect, where there are fewer.`,
		Example: "  varve bench consume --topic b --expect 1000000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.prepare(cmd.Context(), &o); err != nil {
				return err
			}
			idle.Options = o.Options
			var r benchConsumed
			var err error
			r.Broker, err = measured(o.pid, func() (err error) {
				r.Consumed, err = load.Consume(cmd.Context(), idle)
				return err
			}, func() int64 { return r.Bytes })
			if err != nil {
				return err
			}
			r.throughput = rate(r.Records, r.Bytes, r.Elapsed)
			t := table{}
			t.add("records", r.Records)
			t.addRate(r.throughput)
			t.add("first record after", r.FirstByte)
			t.add("lost, duplicated, reordered, damaged", fmt.Sprint(r.Integrity.Lost, r.Integrity.Duplicates, r.Integrity.Reordered, r.Integrity.Damaged))
			t.add("not of varve bench", r.Integrity.Foreign)
			t.addCost(r.Broker)
			if err := a.print(r, t); err != nil {
				return err
			}
			if r.Records < expect {
				return fmt.Errorf("%d records where %d were expected", r.Records, expect)
			}
			if err := r.Integrity.Err(); err != nil {
				return err
			}
			return cmd.Context().Err()
		},
	}
	benchFlags(c, &o)
	c.Flags().Int64VarP(&o.Records, "records", "n", 0, "stop after so many (0: at the end)")
	c.Flags().Int64Var(&expect, "expect", 0, "fail where there are fewer records")
	c.Flags().DurationVar(&idle.Idle, "idle", 0, "give up when nothing comes for so long (0: 30 s)")
	c.Flags().Int32Var(&idle.MaxBytes, "max-partition-bytes", 0, "bytes per partition and fetch (0: 1 MiB)")
	return c
}
