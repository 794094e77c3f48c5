package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/varvelog/varve/internal/testutil/netns"
	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/test/torture/site"
	"github.com/varvelog/varve/test/torture/steer"
)

const (
	diskBytes   = 1 << 30
	diskReserve = 64 << 20 // varve.disk.reserve.bytes
	wholeLimit  = 90 * time.Second
)

// chaos executes a plan. One goroutine.
type chaos struct {
	site  *site.Site
	wheel *steer.Wheel
	r     *report
	began time.Time
	drift time.Duration // what waiting has cost: the plan's times are later by as much
	going []running
	down  map[int32]bool // ended on purpose

	emptied map[int32]time.Time // when a full disk was given its space back
}

// running is a fault that goes on.
type running struct {
	fault
	undo func() error
}

// play executes the plan; at its end, and where it fails, nothing is broken any more but what could not be mended.
func (c *chaos) play(ctx context.Context, plan []fault) (err error) {
	c.began = time.Now()
	defer func() {
		for len(c.going) > 0 {
			err = errors.Join(err, c.finish(c.going[0]))
		}
	}()
	for _, f := range plan {
		if err := c.until(ctx, f.At); err != nil {
			return err
		}
		if err := c.begin(ctx, f); err != nil {
			return fmt.Errorf("%v: %w", f, err)
		}
	}
	for len(c.going) > 0 {
		if err := c.until(ctx, c.going[0].end()); err != nil {
			return err
		}
	}
	return nil
}

// until lets the plan's time pass, ends faults that are over, and starts brokers that have ended by themselves.
func (c *chaos) until(ctx context.Context, at time.Duration) error {
	const beat = 100 * time.Millisecond
	for {
		now := time.Since(c.began) - c.drift
		for i := 0; i < len(c.going); {
			if r := c.going[i]; r.end() <= now {
				if err := c.finish(r); err != nil {
					return fmt.Errorf("end of %v: %w", r.fault, err)
				}
				i = 0
				continue
			}
			i++
		}
		c.reanimate()
		if now >= at {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(beat, at-now)):
		}
	}
}

// reanimate starts what has ended and was not ended by us. With a full disk that is allowed, else it is a problem.
func (c *chaos) reanimate() {
	for _, n := range c.site.Cluster.Nodes {
		if n.Running() || c.down[n.ID] {
			continue
		}
		if c.filled(n) {
			c.r.Faults["ended by a full disk"]++
		} else {
			c.r.problem("broker %d has ended by itself at %.1f s:\n%s", n.ID, time.Since(c.began).Seconds(), n.LogTail())
		}
		if err := n.Start(); err != nil {
			c.r.problem("start broker %d: %v", n.ID, err)
		}
	}
}

// filled reports that a broker's disk is full, or that it ended because it was: what has ended is seen up to a beat later, and on a
// slow machine seconds.
func (c *chaos) filled(n *proc.Node) bool {
	for _, r := range c.going {
		if r.Kind == full && r.Broker == n.ID {
			return true
		}
	}
	return time.Since(c.emptied[n.ID]) < 5*time.Second && strings.Contains(n.LogTail(), "no space left on device")
}

func (c *chaos) begin(ctx context.Context, f fault) error {
	fmt.Fprintf(os.Stderr, "%7.1f s  %v\n", time.Since(c.began).Seconds(), f)
	n := c.site.Cluster.Node(f.Broker)
	for i := 0; i < len(c.going); { // the plan keeps them apart, but what came late lasts longer than planned
		r := c.going[i]
		if !clash(r.fault, f) {
			i++
		} else if err := c.finish(r); err != nil {
			return fmt.Errorf("end of %v: %w", r.fault, err)
		}
	}
	if f.Kind == wipe { // the rule: every replica is in sync
		if err := c.whole(ctx); err != nil {
			return err
		}
	}
	undo, err := c.breakIt(n, f)
	if err != nil {
		return err
	}
	c.r.Faults[f.Kind]++
	f.At = max(f.At, time.Since(c.began)-c.drift) // it lasts as long, however late it came
	c.going = append(c.going, running{f, undo})
	if f.Kind != wipe {
		return nil
	}
	if err := c.until(ctx, f.end()); err != nil {
		return err
	}
	return c.whole(ctx)
}

func (c *chaos) finish(r running) error {
	for i := range c.going {
		if c.going[i].fault == r.fault {
			c.going = append(c.going[:i:i], c.going[i+1:]...)
			break
		}
	}
	if r.Kind == full {
		c.emptied[r.Broker] = time.Now()
	}
	return r.undo()
}

// whole waits until every broker is ready and every replica in sync; the plan's clock stands meanwhile.
func (c *chaos) whole(ctx context.Context) error {
	began := time.Now()
	defer func() { c.drift += time.Since(began) }()
	ctx, cancel := context.WithTimeout(ctx, wholeLimit)
	defer cancel()
	for {
		c.reanimate() // a start on a disk that was full until now
		err := c.site.Cluster.Ready(ctx)
		switch {
		case err == nil:
			return c.wheel.AwaitInSync(ctx)
		case ctx.Err() != nil, !slices.ContainsFunc(c.site.Cluster.Nodes, func(n *proc.Node) bool { return !n.Running() && c.filled(n) }):
			return err
		}
	}
}

// breakIt begins a fault and answers what ends it.
func (c *chaos) breakIt(n *proc.Node, f fault) (undo func() error, err error) {
	switch f.Kind {
	case kill:
		return c.kill(n)
	case killAll:
		return c.killAll()
	case restart:
		return c.restart(n)
	case pause:
		return c.pause(n)
	case wipe:
		undo, err := c.kill(n)
		return undo, errors.Join(err, n.Wipe())
	case full:
		return func() error { return c.site.Disks.Free(n) }, c.site.Disks.Fill(n, diskReserve/2)
	case bucketDead:
		c.site.Door.Die()
	case bucketHung:
		c.site.Door.Hang()
	default:
		return c.breakLink(f)
	}
	return func() error { c.site.Door.Open(); return nil }, nil
}

func (c *chaos) kill(n *proc.Node) (func() error, error) {
	if n.Running() { // else reanimate will say so
		if err := n.Kill9(); err != nil {
			return nil, err
		}
	}
	c.down[n.ID] = true
	return func() error { c.down[n.ID] = false; return n.Start() }, nil
}

func (c *chaos) pause(n *proc.Node) (func() error, error) {
	if !n.Running() {
		return func() error { return nil }, nil // reanimate will say so
	}
	return func() error {
		if !n.Running() {
			return nil
		}
		return n.Cont()
	}, n.Pause()
}

func (c *chaos) killAll() (func() error, error) {
	var undo []func() error
	for _, n := range c.site.Cluster.Nodes {
		u, err := c.kill(n)
		if err != nil {
			return nil, err
		}
		undo = append(undo, u)
	}
	return func() (err error) {
		for _, u := range undo {
			err = errors.Join(err, u())
		}
		return err
	}, nil
}

// restart is a clean end; that it takes longer than the contract's ten seconds, or is none, is a problem but does not end the run.
func (c *chaos) restart(n *proc.Node) (func() error, error) {
	const stopLimit = 11 * time.Second
	began := time.Now()
	defer func() { c.drift += time.Since(began) }()
	patience := stopLimit
	if c.r.System != "Varve" {
		patience = time.Minute
	}
	started, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	_ = n.Ready(started) // one that was started just now may not be able to end cleanly yet: what starts it is no broker
	cancel()
	c.down[n.ID] = true
	if err := n.Stop(patience); err != nil {
		c.r.problem("clean end of broker %d: %v", n.ID, err)
	}
	return func() error { c.down[n.ID] = false; return n.Start() }, nil
}

func (c *chaos) breakLink(f fault) (func() error, error) {
	net, a, b := c.site.Net, site.Index(f.Broker), site.Index(f.Other)
	both := func(do func(from, to int) error, peers ...int) (err error) {
		for _, p := range peers {
			err = errors.Join(err, do(a, p), do(p, a))
		}
		return err
	}
	switch f.Kind {
	case cutOne:
		return func() error { return net.Heal(a, b) }, net.Cut(a, b)
	case cutBoth:
		return func() error { return both(net.Heal, b) }, both(net.Cut, b)
	case isolate:
		var peers []int
		for p := range net.Nodes() {
			if p != a && !(c.site.Door != nil && p == c.site.Clients() && f.For%2 == 0) {
				peers = append(peers, p) // half of the time clients and bucket stay within reach
			}
		}
		return func() error { return both(net.Heal, peers...) }, both(net.Cut, peers...)
	case slow:
		var links []*netns.Slowed
		err := both(func(from, to int) error {
			s, err := net.Slow(from, to, netns.Link{Delay: 20 * time.Millisecond, BytesPerSecond: 200_000, Loss: 0.01, Seed: uint64(f.For)})
			if err == nil {
				links = append(links, s)
			}
			return err
		}, b)
		return func() (err error) {
			for _, s := range links {
				err = errors.Join(err, s.Close())
			}
			return err
		}, err
	}
	return nil, fmt.Errorf("torture: unknown fault %q", f.Kind)
}
