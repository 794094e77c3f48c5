package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// drainPoll is how often --wait looks how far a broker is emptied.
const drainPoll = 500 * time.Millisecond

func newBrokerDrain(a *app) *cobra.Command {
	var cancel, wait bool
	c := &cobra.Command{
		Use:   "drain ID",
		Short: "Empty a broker: its leaderships at once, then its replicas",
		Long: `Mark a broker as one to be emptied. It hands over each leadership that another replica can take, gets no new replicas, and the
controller moves those that it has, a few at a time, to other brokers. The mark stays over restarts until --cancel takes it away;
what has moved by then stays where it is.

With --wait the command ends once the broker holds nothing; that may take longer than --timeout, which then bounds each look only.`,
		Example: "  varve broker drain 3 --wait\n  varve broker drain 3 --cancel",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cancel && wait {
				return errors.New("choose one of --cancel and --wait")
			}
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			method, done := "PUT", "broker %d is being drained"
			if cancel {
				method, done = "DELETE", "broker %d is not drained any more"
			}
			err = a.withHTTP(func(ctx context.Context, _ []string) error {
				return a.call(ctx, method, "/v1/brokers/"+strconv.Itoa(int(id))+"/drain", nil, nil)
			})(cmd, nil)
			if err != nil {
				return err
			}
			a.say(done, id)
			if !wait {
				return nil
			}
			return a.awaitEmpty(cmd, id)
		},
	}
	c.Flags().BoolVar(&cancel, "cancel", false, "stop draining the broker")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the broker holds nothing")
	return c
}

// awaitEmpty returns once a broker holds no replica, and tells on the way how many are left.
func (a *app) awaitEmpty(cmd *cobra.Command, id int32) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for said := -1; ; {
		var left, leads int
		look := a.withAdmin(func(ctx context.Context, adm *kadm.Client, _ []string) (err error) {
			leads, left, err = holds(ctx, adm, id)
			return err
		})
		if err := look(cmd, nil); err != nil {
			return fmt.Errorf("look at broker %d: %w", id, err)
		}
		if left != said {
			said = left
			a.say("broker %d holds %d replicas and leads %d", id, left, leads)
		}
		if left == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return fmt.Errorf("broker %d still holds %d replicas: it goes on being drained: %w", id, left, cmd.Context().Err())
		}
	}
}

// holds counts the partitions that a broker leads and has a replica of.
func holds(ctx context.Context, adm *kadm.Client, id int32) (leading, replicated int, err error) {
	meta, err := adm.Metadata(ctx)
	if err != nil {
		return 0, 0, err
	}
	leads, replicas := held(meta)
	return leads[id], replicas[id], nil
}
