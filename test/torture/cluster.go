package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/varvelog/varve/internal/testutil/netns"
	"github.com/varvelog/varve/test/torture/history"
	"github.com/varvelog/varve/test/torture/site"
	"github.com/varvelog/varve/test/torture/steer"
)

const (
	groupMembers = 3
	startLimit   = 3 * time.Minute
	anewEvery    = 45 * time.Second // a reader begins at offset 0
	progress     = 10 * time.Second
)

// fleet is the run of a cluster.
type fleet struct {
	o      options
	r      *report
	site   *site.Site
	wheel  *steer.Wheel
	t      target
	h      *history.History
	m      *members
	factor int
	chaos  *chaos
}

// shortable says why the short form cannot run here.
func shortable() error { return netns.Available() }

// cluster runs faults under load and passes the verdict.
func cluster(ctx context.Context, o options, r *report) (err error) {
	o.site.S3 = !o.site.Kafka
	o.site.Memory, o.site.Sets = "512MiB", append(smallTiers(), fmt.Sprint("varve.disk.reserve.bytes=", diskReserve))
	if slices.Contains(o.kinds, full) && !o.site.Kafka && os.Geteuid() == 0 {
		o.site.Disk = diskBytes
	}
	s, err := site.New(ctx, o.site)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	clients, err := os.Create(filepath.Join(o.site.Dir, "clients.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clients.Close()) }()
	f := &fleet{o: o, r: r, site: s, t: target{s.Cluster.Bootstrap(), s.Dial, clients}, h: history.New(o.partitions), factor: min(3, o.site.Brokers)}
	if o.site.Alone {
		f.t.bootstrap, f.factor = f.t.bootstrap[:1], 1
	}
	defer r.take(f.h)
	f.o.kinds = f.possible(ctx)
	if err := s.Cluster.Start(ctx); err != nil {
		return err
	}
	if f.wheel, err = steer.Take(f.t.bootstrap, s.Dial); err != nil {
		return err
	}
	defer f.wheel.Close()
	if err := f.create(ctx); err != nil {
		return err
	}
	return f.underLoad(ctx)
}

// possible leaves out what this machine, or this system, does not allow, and says why.
func (f *fleet) possible(ctx context.Context) []kind {
	leave := func(why string, kinds ...kind) {
		f.o.kinds = slices.DeleteFunc(f.o.kinds, func(k kind) bool {
			if slices.Contains(kinds, k) {
				f.r.LeftOut = append(f.r.LeftOut, fmt.Sprintf("%s: %s", k, why))
				return true
			}
			return false
		})
	}
	if f.site.Net == nil {
		why := "on loopback"
		if f.site.Why != nil {
			why = f.site.Why.Error()
		}
		leave(why, cutOne, cutBoth, isolate, slow)
	} else if err := netns.SlowAvailable(ctx); err != nil {
		leave(err.Error(), slow)
	}
	if f.site.Disks == nil {
		leave("no small disks: that needs root, and Varve", full)
	}
	if f.site.Door == nil {
		leave("no bucket", bucketDead, bucketHung)
	}
	if f.factor < 3 || f.o.site.Kafka {
		leave("not on one replica, nor on a voter of Kafka's", wipe)
	}
	return f.o.kinds
}

func (f *fleet) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	configs := map[string]string{"retention.ms": "-1", "min.insync.replicas": fmt.Sprint(max(1, f.factor-1))}
	if !f.o.site.Kafka {
		configs = topicConfigs()
		configs["min.insync.replicas"] = fmt.Sprint(max(1, f.factor-1))
	}
	return f.wheel.Create(ctx, topic, f.placement(), configs)
}

// placement is where partitions are in the beginning and in the end.
func (f *fleet) placement() [][]int32 {
	var brokers []int32
	for _, n := range f.site.Cluster.Nodes {
		brokers = append(brokers, n.ID)
	}
	if f.factor == 1 {
		brokers = brokers[:1]
	}
	return steer.Spread(brokers, f.o.partitions, f.factor)
}

// underLoad has clients work, movers move and the plan happen; then it ends them one after the other and passes the verdict.
func (f *fleet) underLoad(ctx context.Context) error {
	work, stopWork := context.WithCancel(ctx)
	send, stopSending := context.WithCancel(work)
	move, stopMoving := context.WithCancel(work)
	defer stopMoving()
	defer stopSending()
	defer stopWork()
	var producers, movers, readers sync.WaitGroup
	producerErrs, memberErrs := make([]error, f.o.producers), make([]error, groupMembers)
	for id := range f.o.producers {
		producers.Go(func() {
			producerErrs[id] = load{f.o.partitions, f.o.rate, f.o.seed}.produce(send, f.t, uint32(id+1), f.h)
		})
	}
	along, err := newLook(f.t, f.h, "the reader that goes along", f.o.partitions)
	if err != nil {
		return err
	}
	defer along.cl.Close()
	readers.Go(func() { along.until(work, func() bool { return false }) })
	readers.Go(func() { f.anew(move) })
	f.m = &members{t: f.t, g: f.h.Group(), seed: f.o.seed}
	for k := range groupMembers {
		readers.Go(func() { memberErrs[k] = f.m.run(work, k) })
	}
	readers.Go(func() { f.m.watch(work, f.wheel.Admin()) })
	mover := newMover(f.wheel, f.o, f.factor)
	if f.factor > 1 && !f.o.still {
		movers.Go(func() { mover.run(move) })
	}
	movers.Go(func() { f.tell(move) })
	f.chaos = &chaos{site: f.site, wheel: f.wheel, r: f.r, down: map[int32]bool{}, emptied: map[int32]time.Time{}}
	err = f.chaos.play(ctx, newPlan(f.o.seed, int32(f.o.site.Brokers), time.Duration(f.o.seconds)*time.Second, f.o.kinds))
	stopMoving()
	movers.Wait()
	f.r.Moves = mover.counts()
	err = errors.Join(err, f.mend(ctx))
	stopSending()
	producers.Wait()
	err = errors.Join(err, errors.Join(producerErrs...))
	ends, catchErr := f.catchUp(ctx, along.Look)
	stopWork()
	readers.Wait()
	err = errors.Join(err, catchErr, errors.Join(memberErrs...))
	f.r.Read[along.Name] = along.Count()
	f.r.Group = map[string]int64{"read": f.m.g.Read(), "commits": int64(f.m.g.Commits()), "assignments": f.m.rebalances.Load(), "staleAnswers": int64(f.m.g.Stale())}
	if ends == nil {
		return err
	}
	return errors.Join(err, f.verdict(ctx, ends))
}

// anew reads everything from the start, again and again, each time up to where the log ended when it began.
func (f *fleet) anew(ctx context.Context) {
	for k := 1; ; k++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(anewEvery):
		}
		ends, err := endOffsets(ctx, f.wheel.Admin(), f.o.partitions)
		if err != nil {
			return
		}
		l, err := newLook(f.t, f.h, fmt.Sprint("reader ", k, " from the start"), f.o.partitions)
		if err != nil {
			return
		}
		l.until(ctx, func() bool { return l.Reaches(ends) })
		l.cl.Close()
	}
}

// tell prints how far the clients are.
func (f *fleet) tell(ctx context.Context) {
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(progress):
			_, counts := f.h.Anomalies()
			fmt.Fprintf(os.Stderr, "%7.1f s  %d acknowledged, the group has read %d, anomalies %v\n", time.Since(began).Seconds(), f.h.Acked(), f.m.g.Read(), counts)
		}
	}
}
