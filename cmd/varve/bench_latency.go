package main

import (
	"github.com/spf13/cobra"

	"github.com/varvelog/varve/cmd/varve/load"
)

type benchLatencies struct {
	load.Latencies
	throughput
	Broker *brokerCost `json:"broker,omitempty"`
}

func newBenchLatency(a *app) *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:     "latency",
		Short:   "Produce at a fixed rate with a waiting consumer, and measure both ways",
		Example: "  varve bench latency --rate 5000 --duration 30s --size 1024",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.prepare(cmd.Context(), &o); err != nil {
				return err
			}
			var r benchLatencies
			var err error
			r.Broker, err = measured(o.pid, func() (err error) {
				r.Latencies, err = load.Latency(cmd.Context(), o.Options)
				return err
			}, func() int64 { return r.Produce.Bytes })
			if err != nil {
				return err
			}
			r.throughput = rate(r.Produce.Records, r.Produce.Bytes, r.Produce.Elapsed)
			t := table{}
			t.add("records", r.Produce.Records)
			t.addRate(r.throughput)
			t.addQuantiles("acknowledged after", r.Produce.Latency)
			t.addQuantiles("consumed after", r.Consume.Latency)
			t.addCost(r.Broker)
			if err := a.print(r, t); err != nil {
				return err
			}
			return r.Consume.Integrity.Err()
		},
	}
	benchFlags(c, &o)
	benchProduceFlags(c, &o)
	c.Flags().Float64Var(&o.Rate, "rate", 5000, "records per second")
	return c
}
