package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/internal/testutil/proc"
	"github.com/varvelog/varve/test/torture/history"
)

// one is the run of one broker.
type one struct {
	n   *proc.Node
	rng *rand.Rand
	r   *report
}

// single kills one broker again and again while producers and a reader are at work, then checks all.
func single(ctx context.Context, o options, r *report) error {
	n, err := proc.NewNode(o.site.Bin, o.site.Dir)
	if err != nil {
		return err
	}
	if n.Bucket = o.bucket; n.Bucket == "" {
		dir, err := filepath.Abs(o.site.Dir)
		if err != nil {
			return err
		}
		n.Bucket = "dir://" + filepath.Join(dir, "bucket")
	}
	n.Memory, n.Sets = "1GiB", smallTiers()
	if err := n.Start(); err != nil {
		return err
	}
	defer func() { _ = n.Close() }()
	if err := n.Ready(ctx); err != nil {
		return err
	}
	t := target{bootstrap: []string{n.Kafka}}
	cl, err := kgo.NewClient(t.options()...)
	if err != nil {
		return err
	}
	adm := kadm.NewClient(cl)
	defer adm.Close()
	configs := map[string]*string{}
	for name, value := range topicConfigs() {
		configs[name] = &value
	}
	if _, err := adm.CreateTopic(ctx, int32(o.partitions), 1, configs, topic); err != nil {
		return err
	}
	h := history.New(o.partitions)
	defer r.take(h)
	x := &one{n: n, rng: rand.New(rand.NewPCG(o.seed, 0)), r: r}
	if err := x.underLoad(ctx, o, t, h); err != nil {
		return err
	}
	return x.check(ctx, t, adm, h, o.partitions)
}

// smallTiers has ranges sealed, tiered and trimmed within seconds, so that every path is taken.
func smallTiers() []string {
	return []string{
		"log.segment.bytes=1048576", "varve.scrub.interval.ms=3000", "varve.gc.grace.ms=1000", "varve.hot.bytes=4194304",
		"log.retention.check.interval.ms=1000", "varve.tail.bytes=2097152",
	}
}

func topicConfigs() map[string]string {
	return map[string]string{"varve.tiering.max.lag.ms": "200", "retention.ms": "-1"}
}

// underLoad kills while clients are at work.
func (x *one) underLoad(ctx context.Context, o options, t target, h *history.History) error {
	send, stopSending := context.WithCancel(ctx)
	read, stopReading := context.WithCancel(ctx)
	defer stopReading()
	defer stopSending()
	along, err := newLook(t, h, "the reader that goes along", o.partitions)
	if err != nil {
		return err
	}
	defer along.cl.Close()
	var producers, readers sync.WaitGroup
	errs := make([]error, o.producers)
	for id := range o.producers {
		producers.Go(func() { errs[id] = load{o.partitions, o.rate, o.seed}.produce(send, t, uint32(id+1), h) })
	}
	readers.Go(func() { along.until(read, func() bool { return false }) })
	err = x.kill(ctx, o.kills, time.Duration(o.seconds)*time.Second)
	stopSending()
	producers.Wait()
	stopReading()
	readers.Wait()
	x.r.Read[along.Name] = along.Count()
	return errors.Join(err, errors.Join(errs...))
}

// kill ends the broker at random moments: mostly under load, sometimes while it starts.
func (x *one) kill(ctx context.Context, kills int, limit time.Duration) error {
	var readyMs []int64
	begin := time.Now()
	for x.r.Faults[kill] < kills && (limit == 0 || time.Since(begin) < limit) && ctx.Err() == nil {
		time.Sleep(time.Duration(30+x.rng.IntN(1500)) * time.Millisecond)
		if err := x.n.Kill9(); err != nil {
			return err
		}
		x.r.Faults[kill]++
		for x.rng.IntN(5) == 0 && x.r.Faults[kill] < kills {
			if err := x.n.Start(); err != nil {
				return err
			}
			time.Sleep(time.Duration(x.rng.IntN(700)) * time.Millisecond)
			if err := x.n.Kill9(); err != nil {
				return err
			}
			x.r.Faults[kill]++
			x.r.Faults["kill-during-start"]++
		}
		exec := time.Now()
		if err := errors.Join(x.n.Start(), x.n.Ready(ctx)); err != nil {
			return err
		}
		readyMs = append(readyMs, time.Since(exec).Milliseconds())
	}
	if k := len(readyMs); k > 0 {
		slices.Sort(readyMs)
		x.r.Ready = map[string]int64{"median": readyMs[k/2], "max": readyMs[k-1]}
	}
	return ctx.Err()
}

// check reads everything again and waits for a clean bucket.
func (x *one) check(ctx context.Context, t target, adm *kadm.Client, h *history.History, partitions int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	ends, err := endOffsets(ctx, adm, partitions)
	if err != nil {
		return err
	}
	final, err := readAll(ctx, t, h, "the last reader", ends)
	if err != nil {
		return err
	}
	x.r.Read[final.Name] = final.Count()
	if final.Reaches(ends) {
		h.Check(final)
	}
	for { // one scrub takes the orphans of the last crash
		out, err := x.n.Fsck()
		if json.Valid([]byte(out)) {
			x.r.Fsck = json.RawMessage(out)
		}
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the bucket is not clean: %s", out)
		case <-time.After(time.Second):
		}
	}
	return x.n.End(syscall.SIGTERM)
}
