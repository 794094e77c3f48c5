package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/varvelog/varve/cmd/varve/load"
)

type benchProduced struct {
	load.Produced
	throughput
	Broker *brokerCost `json:"broker,omitempty"`
}

func newBenchProduce(a *app) *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "produce",
		Short: "Produce stamped records and measure",
		Long: `Produce records that carry their run, sequence, checksum and chain, so that varve bench consume can tell lost, duplicated,
reordered and damaged ones. Prints throughput, latency from handing over to acknowledgement, and with --pid what the broker
used. Fails where a record was not acknowledged.`,
		Example: `  varve bench produce --topic b --records 1000000 --size 1024 --partitions 16
  varve bench produce --topic b --rate 5000 --duration 30s --pid $(pidof varve) --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.prepare(cmd.Context(), &o); err != nil {
				return err
			}
			var r benchProduced
			var err error
			r.Broker, err = measured(o.pid, func() (err error) {
				r.Produced, err = load.Produce(cmd.Context(), o.Options)
				return err
			}, func() int64 { return r.Bytes })
			if err != nil {
				return err
			}
			r.throughput = rate(r.Records, r.Bytes, r.Elapsed)
			t := table{}
			t.add("run", r.Run)
			t.add("records", r.Records)
			t.addRate(r.throughput)
			t.addQuantiles("acknowledged after", r.Latency)
			t.addCost(r.Broker)
			if err := a.print(r, t); err != nil {
				return err
			}
			if r.Failed > 0 {
				return fmt.Errorf("%d records were not acknowledged: %s", r.Failed, r.FirstError)
			}
			return cmd.Context().Err()
		},
	}
	benchFlags(c, &o)
	benchProduceFlags(c, &o)
	c.Flags().Int64VarP(&o.Records, "records", "n", 1_000_000, "records in all (0: until --duration)")
	c.Flags().Float64Var(&o.Rate, "rate", 0, "records per second (0: as fast as it goes)")
	c.Flags().DurationVar(&o.Linger, "linger", 0, "how long a client waits to fill a batch (0: 5 ms)")
	return c
}
