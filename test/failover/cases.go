package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/test/torture/site"
	"github.com/varvelog/varve/test/torture/steer"
)

const (
	settleLimit = 2 * time.Minute
	calm        = 2 * time.Second // before a fault, and after the acknowledgements flow again
	flowing     = 50              // acknowledgements of a partition that prove it
)

// run is a cluster under measurement.
type run struct {
	site       *site.Site
	wheel      *steer.Wheel
	stalls     *stalls
	partitions int
	pause      time.Duration
}

// round is one fault and its figures, in milliseconds; -1: not measured.
type round struct {
	Case       string `json:"case"`
	Round      int    `json:"round"`
	Victim     int32  `json:"victim"`
	Controller bool   `json:"wasController"`
	Led        int    `json:"partitionsLed"`
	Stall      int64  `json:"stallMs"`
	Fresh      int64  `json:"freshMs"`
	Back       int64  `json:"backMs"`
	Calm       int64  `json:"calmMs"` // the longest stall of the two seconds before
}

// cases by name; each measures one round, or several figures of one.
func (r *run) cases() map[string]func(ctx context.Context, number int) ([]round, error) {
	return map[string]func(ctx context.Context, number int) ([]round, error){
		"leader": func(ctx context.Context, k int) ([]round, error) {
			return r.one(ctx, "leader", k, false, r.kill)
		},
		"controller": func(ctx context.Context, k int) ([]round, error) {
			return r.one(ctx, "controller", k, true, r.kill)
		},
		"restart": r.restarts,
		"pause": func(ctx context.Context, k int) ([]round, error) {
			return r.one(ctx, "pause", k, k%2 == 0, func(ctx context.Context, n *proc.Node, m *round, led []int32) (func() error, error) {
				return r.hang(ctx, n, m, led, n.Pause, n.Cont)
			})
		},
		"cut": func(ctx context.Context, k int) ([]round, error) {
			return r.one(ctx, "cut", k, k%2 == 0, func(ctx context.Context, n *proc.Node, m *round, led []int32) (func() error, error) {
				return r.hang(ctx, n, m, led, func() error { return r.isolate(n.ID) }, r.site.Net.HealAll)
			})
		},
	}
}

// fault does something to a node and answers how it is undone; undo does not wait until the node is ready.
type fault func(ctx context.Context, n *proc.Node, m *round, led []int32) (undo func() error, err error)

// one waits until all is well, has a fault happen to the controller or to another broker, and measures until it is over.
func (r *run) one(ctx context.Context, name string, number int, controller bool, f fault) ([]round, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*settleLimit+r.pause)
	defer cancel()
	m := round{Case: name, Round: number, Controller: controller, Fresh: -1}
	victim, led, err := r.choose(ctx, controller, number)
	if err != nil {
		return nil, err
	}
	m.Victim, m.Led = victim.ID, len(led)
	if m.Calm, err = r.calmDown(ctx); err != nil {
		return nil, err
	}
	r.stalls.mark()
	undo, err := f(ctx, victim, &m, led)
	if err != nil {
		return nil, err
	}
	m.Stall = r.stalls.worst(time.Now()).Milliseconds()
	r.stalls.mark()
	if err := undo(); err != nil {
		return nil, err
	}
	if m.Back, err = r.whole(ctx, victim); err != nil {
		return nil, err
	}
	return []round{m}, nil
}

// choose waits for a whole cluster whose preferred leaders lead, and names the victim and what it leads.
func (r *run) choose(ctx context.Context, controller bool, number int) (*proc.Node, []int32, error) {
	if err := r.wheel.AwaitBalanced(ctx, topic); err != nil {
		return nil, nil, fmt.Errorf("before the fault: %w", err)
	}
	if err := r.wheel.AwaitBalanced(ctx, freshTopic); err != nil {
		return nil, nil, fmt.Errorf("before the fault: %w", err)
	}
	leader, err := r.wheel.AwaitController(ctx)
	if err != nil {
		return nil, nil, err
	}
	id := leader
	if !controller { // the others in turn
		var others []int32
		for _, n := range r.site.Cluster.Nodes {
			if n.ID != leader {
				others = append(others, n.ID)
			}
		}
		id = others[number%len(others)]
	}
	leaders, _, err := r.wheel.Leaders(ctx, topic)
	if err != nil {
		return nil, nil, err
	}
	var led []int32
	for p, l := range leaders {
		if l == id {
			led = append(led, int32(p))
		}
	}
	if len(led) == 0 {
		return nil, nil, fmt.Errorf("broker %d leads nothing", id)
	}
	return r.site.Cluster.Node(id), led, nil
}

// calmDown waits two seconds in which acknowledgements flow, and answers the longest stall among them.
func (r *run) calmDown(ctx context.Context) (int64, error) {
	if err := r.flow(ctx); err != nil {
		return 0, err
	}
	r.stalls.mark()
	if err := sleep(ctx, calm); err != nil {
		return 0, err
	}
	return r.stalls.worst(time.Now()).Milliseconds(), nil
}

// flow waits until every partition has had acknowledgements from now on.
func (r *run) flow(ctx context.Context) error {
	want := r.stalls.counts()
	for p := range want {
		want[p] += flowing
	}
	for {
		now := r.stalls.counts()
		behind := -1
		for p := range now {
			if now[p] < want[p] {
				behind = p
			}
		}
		if behind < 0 {
			return nil
		}
		if err := sleep(ctx, tick); err != nil {
			return fmt.Errorf("partition %d: acknowledgements do not flow: %w", behind, err)
		}
	}
}

// kill is SIGKILL; the broker stays away until the others have taken over.
func (r *run) kill(ctx context.Context, n *proc.Node, _ *round, _ []int32) (func() error, error) {
	if err := n.Kill9(); err != nil {
		return nil, err
	}
	if err := r.flow(ctx); err != nil {
		return nil, err
	}
	return n.Start, sleep(ctx, calm)
}

// hang has a node hang for a while and measures how soon fresh producers get through.
func (r *run) hang(ctx context.Context, n *proc.Node, m *round, led []int32, begin, end func() error) (func() error, error) {
	var seeds []string
	for _, other := range r.site.Cluster.Nodes {
		if other != n {
			seeds = append(seeds, other.Kafka)
		}
	}
	if err := begin(); err != nil {
		return nil, err
	}
	f := tryFresh(ctx, r.site.Cluster, seeds, led)
	if err := sleep(ctx, r.pause); err != nil {
		return nil, err
	}
	if took, all := f.end(led); all {
		m.Fresh = took.Milliseconds()
	}
	return end, nil
}

// isolate cuts a broker off from everybody, the clients too.
func (r *run) isolate(id int32) error {
	me := site.Index(id)
	var errs []error
	for other := range r.site.Net.Nodes() {
		if other != me {
			errs = append(errs, r.site.Net.Cut(me, other), r.site.Net.Cut(other, me))
		}
	}
	return errors.Join(errs...)
}

// whole waits until the broker leads again and all replicas are in sync; it answers the longest stall meanwhile.
func (r *run) whole(ctx context.Context, n *proc.Node) (int64, error) {
	if err := n.Ready(ctx); err != nil {
		return 0, err
	}
	if err := r.wheel.AwaitBalanced(ctx, topic); err != nil {
		return 0, fmt.Errorf("broker %d is back: %w", n.ID, err)
	}
	if err := r.flow(ctx); err != nil {
		return 0, err
	}
	return r.stalls.worst(time.Now()).Milliseconds(), nil
}

// restarts ends each broker with SIGTERM and starts it at once, the controller last; the stall covers all until it leads again.
func (r *run) restarts(ctx context.Context, number int) (all []round, err error) {
	controller, err := r.wheel.AwaitController(ctx)
	if err != nil {
		return nil, err
	}
	nodes := slices.Clone(r.site.Cluster.Nodes)
	slices.SortStableFunc(nodes, func(a, b *proc.Node) int { return btoi(a.ID == controller) - btoi(b.ID == controller) })
	for _, n := range nodes {
		ctx, cancel := context.WithTimeout(ctx, 2*settleLimit)
		defer cancel()
		if err := r.wheel.AwaitBalanced(ctx, topic); err != nil {
			return all, err
		}
		m := round{Case: "restart", Round: number, Victim: n.ID, Controller: n.ID == controller, Fresh: -1, Back: -1}
		if m.Calm, err = r.calmDown(ctx); err != nil {
			return all, err
		}
		r.stalls.mark()
		if err := n.Restart(); err != nil {
			return all, err
		}
		if m.Stall, err = r.whole(ctx, n); err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
