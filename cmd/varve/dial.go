package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// reachTimeout bounds the first contact with a broker, so that a wrong address is told soon.
const reachTimeout = 5 * time.Second

// dial opens a client and makes sure that a broker answers.
func (a *app) dial(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(a.bootstrap, ",")...),
		kgo.ClientID("varve-cli"),
		kgo.DialTimeout(reachTimeout),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", a.bootstrap, err)
	}
	ping, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if err := cl.Ping(ping); err != nil {
		cl.Close()
		return nil, fmt.Errorf("no broker answers at %s (is `varve serve` running? --bootstrap or VARVE_BOOTSTRAP name another): %w", a.bootstrap, err)
	}
	return cl, nil
}

// withAdmin makes a command's body of a function that needs an administrative client and ends within --timeout.
func (a *app) withAdmin(do func(ctx context.Context, adm *kadm.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.withClient(func(ctx context.Context, cl *kgo.Client, args []string) error {
		return do(ctx, kadm.NewClient(cl), args)
	})
}

// withClient is withAdmin for what an administrative client has no request for.
func (a *app) withClient(do func(ctx context.Context, cl *kgo.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), a.timeout, fmt.Errorf("no answer within --timeout %s", a.timeout))
		defer cancel()
		cl, err := a.dial(ctx)
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := do(ctx, cl, args); err != nil {
			if ctx.Err() != nil && !errors.Is(err, errReported) {
				return context.Cause(ctx)
			}
			return err
		}
		return nil
	}
}
