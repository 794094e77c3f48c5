package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

const votersNote = `
The voters are the brokers that embed a member of etcd, which holds the cluster's metadata. Which ones they are stands in two places:
in etcd, which this command changes, and in every broker's --voters, which it prints and which has to follow before a broker is
started the next time.`

// withHTTP makes a command's body of a function that needs the broker's HTTP side only and ends within --timeout.
func (a *app) withHTTP(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), a.timeout, fmt.Errorf("no answer within --timeout %s", a.timeout))
		defer cancel()
		err := do(ctx, args)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}

func newAddVoter(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "add-voter ID@HOST:PORT",
		Short: "Let a broker vote on the cluster's metadata",
		Long: `Register a broker's etcd member, at the address where the other voters will reach it. It begins to vote once the broker is started
with a --voters that names it; until then remove-voter HOST:PORT takes it back. One that runs as a non-voter has to be stopped
before, and one that was a voter until it was removed has to clear what it has of that (its start names the directory).
` + votersNote,
		Example: "  varve cluster add-voter 4@10.0.0.4:2380",
		Args:    cobra.ExactArgs(1),
		RunE: a.withHTTP(func(ctx context.Context, args []string) error {
			v, err := parseVoter(args[0])
			if err != nil {
				return err
			}
			if err := a.call(ctx, "POST", "/v1/voters", v, nil); err != nil {
				return err
			}
			return a.votersAfter(ctx, &v, "added voter %d: start broker %d with this list to let it vote", v.NodeID, v.NodeID)
		}),
	}
}

func newRemoveVoter(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove-voter ID|HOST:PORT",
		Short: "Take a broker's vote away, whether it runs or not",
		Long: `Remove a broker's etcd member. A broker that runs ends then; with a --voters that does not name it, it may be started again as a
non-voter. etcd refuses to go below a majority of healthy voters.

One that was added and has never started, by a mistyped address for instance, has no id in etcd: it is removed by its address.
` + votersNote,
		Example: "  varve cluster remove-voter 3\n  varve cluster remove-voter 10.0.0.44:2380",
		Args:    cobra.ExactArgs(1),
		RunE: a.withHTTP(func(ctx context.Context, args []string) error {
			if _, _, err := net.SplitHostPort(args[0]); err == nil {
				if err := a.call(ctx, "DELETE", "/v1/voters?"+url.Values{"address": args}.Encode(), nil, nil); err != nil {
					return err
				}
				return a.votersAfter(ctx, nil, "removed the voter at %s, which has never started", args[0])
			}
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			if err := a.call(ctx, "DELETE", "/v1/voters/"+strconv.Itoa(int(id)), nil, nil); err != nil {
				return err
			}
			return a.votersAfter(ctx, nil, "removed voter %d", id)
		}),
	}
}

func newReplaceVoter(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "replace-voter OLD ID@HOST:PORT",
		Short: "Take one broker's vote away and give it to another",
		Long: `Remove a voter, dead or alive, and register another: remove-voter and add-voter, in this order. A voter that only lost its disk
needs no replacement: started again under its id, it joins by itself.
` + votersNote,
		Example: "  varve cluster replace-voter 3 4@10.0.0.4:2380",
		Args:    cobra.ExactArgs(2),
		RunE: a.withHTTP(func(ctx context.Context, args []string) error {
			old, err := parseNode(args[0])
			if err != nil {
				return err
			}
			v, err := parseVoter(args[1])
			if err != nil {
				return err
			}
			if err := a.call(ctx, "PUT", "/v1/voters/"+strconv.Itoa(int(old)), v, nil); err != nil {
				return err
			}
			return a.votersAfter(ctx, &v, "replaced voter %d: start broker %d with this list to let it vote", old, v.NodeID)
		}),
	}
}

func newMoveController(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "move-controller ID",
		Short:   "Make a voter the controller",
		Example: "  varve cluster move-controller 2",
		Args:    cobra.ExactArgs(1),
		RunE: a.withHTTP(func(ctx context.Context, args []string) error {
			id, err := parseNode(args[0])
			if err != nil {
				return err
			}
			if err := a.call(ctx, "PUT", "/v1/controller", struct {
				NodeID int32 `json:"nodeId"`
			}{id}, nil); err != nil {
				return err
			}
			a.say("voter %d leads etcd now: broker %d takes over as the controller", id, id)
			return nil
		}),
	}
}

// parseVoter reads an entry of --voters.
func parseVoter(s string) (voterAddress, error) {
	id, addr, ok := strings.Cut(s, "@")
	n, err := parseNode(id)
	if _, port, perr := net.SplitHostPort(addr); !ok || err != nil || perr != nil || port == "" {
		return voterAddress{}, fmt.Errorf("%q: want ID@HOST:PORT", s)
	}
	return voterAddress{NodeID: n, Address: addr}, nil
}

// votersAfter tells what was done, and the list for --voters. A new voter, which has not started, stands in etcd without an id.
func (a *app) votersAfter(ctx context.Context, added *voterAddress, done string, args ...any) error {
	var c clusterAnswer
	err := a.call(ctx, "GET", "/v1/cluster", nil, &c)
	switch {
	case err != nil:
	case c.Problem != "":
		err = fmt.Errorf("%s", c.Problem)
	}
	if err != nil {
		a.say(done, args...)
		a.warn("the list of voters is unknown: %v", err)
		return nil
	}
	var list []voterAddress
	for _, v := range c.Voters {
		if v.NodeID >= 0 {
			list = append(list, voterAddress{v.NodeID, v.Address})
		}
	}
	if added != nil && !slices.ContainsFunc(list, func(v voterAddress) bool { return v.NodeID == added.NodeID }) {
		list = append(list, *added)
	}
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = fmt.Sprintf("%d@%s", v.NodeID, v.Address)
	}
	if a.output == "json" {
		return a.printJSON(struct {
			Voters string `json:"voters"`
		}{strings.Join(names, ",")})
	}
	a.say(done, args...)
	a.say("--voters %s", strings.Join(names, ","))
	return nil
}
