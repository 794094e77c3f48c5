package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/test/torture/history"
)

const (
	catchUpLimit = 2 * time.Minute
	replicaLimit = 2 * time.Minute // to move all leaders to one broker and read everything from it
	fsckLimit    = 2 * time.Minute
	fsckGrace    = "20s" // more than varve.gc.grace.ms and a scrub
)

// mend makes the cluster whole: every broker runs, every replica is where it was in the beginning and in sync.
func (f *fleet) mend(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, wholeLimit)
	defer cancel()
	if f.site.Net != nil {
		if err := f.site.Net.HealAll(); err != nil {
			return err
		}
	}
	f.chaos.reanimate()
	if err := f.site.Cluster.Ready(ctx); err != nil {
		return err
	}
	if err := f.wheel.AwaitInSync(ctx); err != nil {
		return fmt.Errorf("the cluster does not become whole: %w", err)
	}
	if err := f.replace(ctx, f.placement()); err != nil {
		f.r.problem("move the replicas back: %v", err)
	}
	f.r.WholeMs = time.Since(began).Milliseconds()
	return nil
}

// replace moves all partitions to where they are wanted and waits until they are there and in sync. It asks again and again: what the movers
// asked for last may still be on its way.
func (f *fleet) replace(ctx context.Context, placement [][]int32) error {
	const patience = 10 * time.Second
	to := map[int32][]int32{}
	for p, replicas := range placement {
		to[int32(p)] = replicas
	}
	for {
		var err error
		if f.factor > 1 {
			err = f.wheel.Reassign(ctx, topic, to)
		}
		if err == nil {
			wait, cancel := context.WithTimeout(ctx, patience)
			err = f.wheel.AwaitPlacement(wait, topic, placement)
			cancel()
		}
		var refused *kerr.Error
		if err == nil || errors.As(err, &refused) && !refused.Retriable && !errors.Is(err, context.DeadlineExceeded) {
			return err // there, or refused for good
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// catchUp waits until those who read along have read everything; it is noted where they do not.
func (f *fleet) catchUp(ctx context.Context, along *history.Look) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	ends, err := endOffsets(ctx, f.wheel.Admin(), f.o.partitions)
	if err != nil {
		return nil, err
	}
	done := func() bool { return f.m.g.Reaches(ends) && along.Reaches(ends) }
	for !done() && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	f.m.g.Reach(ends)
	along.Reach(ends, true)
	f.m.ask(ctx, f.wheel.Admin(), true)
	return ends, nil
}

// verdict reads everything from each broker in turn: all replicas must be equal. Then the bucket is checked, and every broker must end
// cleanly.
func (f *fleet) verdict(ctx context.Context, ends []int64) error {
	var final *history.Look
	var errs []error
	for _, n := range f.site.Cluster.Nodes {
		look, err := f.ledBy(ctx, n.ID, ends)
		if err != nil {
			errs = append(errs, fmt.Errorf("read from broker %d: %w", n.ID, err))
			continue
		}
		f.r.Read[look.Name] = look.Count()
		if final == nil || look.Reaches(ends) {
			final = look
		}
		if f.factor == 1 {
			break
		}
	}
	if final == nil { // leaders cannot be moved: as it is led
		all, cancel := context.WithTimeout(ctx, replicaLimit)
		defer cancel()
		var err error
		if final, err = readAll(all, f.t, f.h, "the last reader", ends); err != nil {
			return errors.Join(append(errs, err)...)
		}
		f.r.Read[final.Name] = final.Count()
	}
	if final.Reaches(ends) { // else no word on what may be there
		f.h.Check(final)
	}
	if !f.o.site.Kafka {
		errs = append(errs, f.fsck(ctx))
	}
	if err := f.site.Cluster.Stop(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ledBy moves all leaders that can be there to one broker and reads everything.
func (f *fleet) ledBy(ctx context.Context, broker int32, ends []int64) (*history.Look, error) {
	ctx, cancel := context.WithTimeout(ctx, replicaLimit)
	defer cancel()
	if f.factor > 1 {
		placement := f.placement()
		for _, replicas := range placement {
			for i, id := range replicas {
				if id == broker {
					replicas[0], replicas[i] = replicas[i], replicas[0]
				}
			}
		}
		if err := f.replace(ctx, placement); err != nil {
			return nil, err
		}
		if err := f.wheel.AwaitBalanced(ctx, topic); err != nil {
			return nil, err
		}
	}
	return readAll(ctx, f.t, f.h, fmt.Sprint("the reader from broker ", broker), ends)
}

// fsck waits for a clean bucket: one scrub takes the orphans of the last crash.
func (f *fleet) fsck(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fsckLimit)
	defer cancel()
	for {
		out, err := f.site.Fsck(ctx, fsckGrace)
		if json.Valid([]byte(out)) {
			f.r.Fsck = json.RawMessage(out)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the bucket is not clean: %w: %s", err, out)
		case <-time.After(2 * time.Second):
		}
	}
}
