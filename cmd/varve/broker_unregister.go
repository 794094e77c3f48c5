package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func newBrokerUnregister(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "unregister ID",
		Short: "Forget a broker that is gone for good",
		Long: `Take a dead broker off the list of the cluster's brokers. One that serves is refused, as is, without --force, one that still has
replicas: they would stay assigned to it until they are reassigned. A broker that comes back after this starts with no place
in any ISR: what only its disk has is lost.

kafka-cluster unregister does the same without asking about replicas.`,
		Example: "  varve broker unregister 3",
		Args:    cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, cl *kgo.Client, args []string) error {
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			_, replicas, err := holds(ctx, kadm.NewClient(cl), id)
			if err != nil {
				return err
			}
			if replicas > 0 && !force {
				return fmt.Errorf("broker %d has replicas of %d partitions: drain or reassign them first, or say --force", id, replicas)
			}
			req := kmsg.NewPtrUnregisterBrokerRequest()
			req.BrokerID = id
			resp, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
				if resp.ErrorMessage != nil && *resp.ErrorMessage != "" {
					return fmt.Errorf("%s (%w)", *resp.ErrorMessage, err)
				}
				return err
			}
			a.say("broker %d is forgotten", id)
			return nil
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "also where the broker still has replicas")
	return c
}
