package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/cmd/varve/load"
)

const (
	scaleTopics    = 10
	scalePatience  = 5 * time.Minute // Kafka on two cores, after a kill -9, needs three and more
	leaderPatience = time.Minute     // for preferred leaders: Kafka looks every five minutes (leader.imbalance.check.interval.seconds)
	// stopPatience is for one broker. Kafka's last one, which is the controller and has no quorum any more, waits five minutes for
	// its own controlled shutdown; so it is killed, and its next start repairs its logs.
	stopPatience = 45 * time.Second
	scaleSettle  = 5 * time.Second
	scaleWatch   = 10 * time.Second
)

// scaleResult is what many partitions cost one cluster. Zero: not measured, or not within the patience above.
type scaleResult struct {
	System     string `json:"system"`
	Round      int    `json:"round"`
	Partitions int    `json:"partitions"` // each with three replicas

	CreateSeconds float64 `json:"createSeconds"` // one CreateTopics, until all are led, in sync and answer
	FirstSeconds  float64 `json:"firstSeconds"`  // one record to each partition, until all are acknowledged
	IdleCPU       float64 `json:"idleCpuPercent"`
	StopSeconds   float64 `json:"stopSeconds"`  // SIGTERM to one after the other, the controller last
	StartSeconds  float64 `json:"startSeconds"` // all three processes, until all partitions are led, in sync and answer

	Member     failure `json:"member"`     // kill -9 of a broker that is not the controller
	Controller failure `json:"controller"` // and of the one that is

	RSSCreated []int64 `json:"rssCreatedBytes"` // of each broker, after its first records
	RSSEnd     []int64 `json:"rssEndBytes"`     // after the failures

	Notes []string `json:"notes,omitempty"`
}

// failure is what a killed broker comes to.
type failure struct {
	LedSeconds   float64 `json:"ledSeconds"`   // until both survivors name a living leader of every partition
	AckedSeconds float64 `json:"ackedSeconds"` // until records sent to every partition at the kill are acknowledged
	MedianAcked  float64 `json:"medianAckedSeconds"`
	// From the start of its process.
	InSyncSeconds    float64 `json:"inSyncSeconds"`
	PreferredSeconds float64 `json:"preferredSeconds"` // until every partition is led by its first replica
}

// runScale takes one system through everything in scaleResult.
func runScale(ctx context.Context, o options, name, dir string, round int, r *report) (err error) {
	s, err := startSystem(ctx, o, name, dir, brokers)
	if err != nil {
		return err
	}
	defer func() { // the clean stop is measured before
		s.adm.Close()
		err = errors.Join(err, s.Close())
	}()
	run := &scale{system: s, result: scaleResult{System: name, Round: round + 1, Partitions: o.partitions / scaleTopics * scaleTopics}}
	defer func() { r.Scales = append(r.Scales, run.result) }() // also half of one
	for i := range scaleTopics {
		run.topics = append(run.topics, fmt.Sprintf("scale-%d", i))
	}
	if run.views, err = views(s); err != nil {
		return err
	}
	defer run.close()
	if run.producer, err = kgo.NewClient(kgo.SeedBrokers(s.Bootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(metadataMinAge), kgo.RetryBackoffFn(func(int) time.Duration { return retryBackoff })); err != nil {
		return err
	}
	defer run.producer.Close()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"create", run.create}, {"idle", run.idle}, {"restart", run.restart}, {"member", run.member}, {"controller", run.controller}} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("%-6s scale %s (%.0f s)\n", name, step.name, time.Since(began).Seconds())
	}
	run.result.RSSEnd, err = run.rss()
	return err
}

// retryBackoff of the producers that a failover is seen by.
const retryBackoff = 50 * time.Millisecond

// scale is a cluster with many partitions, and those who watch it.
type scale struct {
	*system
	topics   []string
	views    []*view
	producer *kgo.Client
	result   scaleResult
}

func (c *scale) close() {
	for _, v := range c.views {
		v.cl.Close()
	}
}

func (c *scale) perTopic() int32 { return int32(c.result.Partitions / scaleTopics) }

func (c *scale) create(ctx context.Context) error {
	began := time.Now()
	made, err := c.adm.CreateTopics(ctx, c.perTopic(), c.replicas, c.topicSettings(), c.topics...)
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		return err
	}
	if err := c.awaitWhole(ctx); err != nil {
		return err
	}
	c.result.CreateSeconds = time.Since(began).Seconds()
	acks, err := c.send(ctx)(ctx)
	if err != nil {
		return err
	}
	c.result.FirstSeconds = slices.Max(acks).Seconds()
	c.result.RSSCreated, err = c.rss()
	return err
}

// awaitWhole asks every broker's metadata first, which is cheap, and then every leader.
func (c *scale) awaitWhole(ctx context.Context) error {
	if err := c.await(ctx, scalePatience, c.views, inSync); err != nil {
		return err
	}
	return poll(ctx, scalePatience, func() error { return c.whole(ctx, c.perTopic(), c.topics...) })
}

func (c *scale) idle(ctx context.Context) error {
	if err := pause(ctx, scaleSettle); err != nil {
		return err
	}
	before, err := c.usage(ctx)
	if err == nil {
		err = pause(ctx, scaleWatch)
	}
	if err != nil {
		return err
	}
	after, err := c.usage(ctx)
	c.result.IdleCPU = 100 * (after.CPUSeconds - before.CPUSeconds) / scaleWatch.Seconds()
	return err
}

// restart ends the brokers one after the other, the controller last, and starts them all at once.
func (c *scale) restart(ctx context.Context) error {
	last, err := c.quorumLeader(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range int32(brokers) {
		n := c.Node((last+i)%brokers + 1)
		if err := n.Stop(stopPatience); err != nil { // which has killed it
			c.result.Notes = append(c.result.Notes, fmt.Sprintf("broker %d, number %d to stop: %v", n.ID, i+1, err))
		}
	}
	c.result.StopSeconds = time.Since(began).Seconds()
	began = time.Now()
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if err := c.awaitWhole(ctx); err != nil {
		return err
	}
	c.result.StartSeconds = time.Since(began).Seconds()
	return nil
}

func (c *scale) member(ctx context.Context) error {
	id, err := c.quorumLeader(ctx)
	if err != nil {
		return err
	}
	c.result.Member, err = c.fail(ctx, id%brokers+1)
	return err
}

func (c *scale) controller(ctx context.Context) error {
	id, err := c.quorumLeader(ctx)
	if err != nil {
		return err
	}
	c.result.Controller, err = c.fail(ctx, id)
	return err
}

// fail kills a broker, measures how the others take over, and how it comes back.
func (c *scale) fail(ctx context.Context, id int32) (f failure, err error) {
	if _, err := c.send(ctx)(ctx); err != nil { // the producer knows every leader, and has connections
		return f, err
	}
	survivors := slices.DeleteFunc(slices.Clone(c.views), func(v *view) bool { return v.id == id })
	killed := time.Now()
	if err := c.Node(id).Kill9(); err != nil {
		return f, err
	}
	acks := c.send(ctx)
	if err := c.await(ctx, scalePatience, survivors, led(id)); err != nil {
		return f, err
	}
	f.LedSeconds = time.Since(killed).Seconds()
	took, err := acks(ctx)
	if err != nil {
		return f, err
	}
	slices.Sort(took)
	f.AckedSeconds, f.MedianAcked = took[len(took)-1].Seconds(), took[len(took)/2].Seconds()
	back := time.Now()
	if err := c.Node(id).Start(); err != nil {
		return f, err
	}
	if err := c.await(ctx, scalePatience, c.views, inSync); err != nil {
		return f, err
	}
	f.InSyncSeconds = time.Since(back).Seconds()
	if err := c.await(ctx, leaderPatience, c.views, preferred); err != nil {
		c.result.Notes = append(c.result.Notes, fmt.Sprintf("leaders after broker %d came back: %v", id, err))
		return f, nil // not within the patience: zero
	}
	f.PreferredSeconds = time.Since(back).Seconds()
	return f, nil
}

// send hands one record for each partition to the producer; the function that it returns waits for the acknowledgements and
// says how long each took.
func (c *scale) send(ctx context.Context) func(context.Context) ([]time.Duration, error) {
	var mu sync.Mutex
	var took []time.Duration
	var errs error
	began := time.Now()
	value := make([]byte, load.HeadSize)
	for _, topic := range c.topics {
		for p := range c.perTopic() {
			c.producer.Produce(ctx, &kgo.Record{Topic: topic, Partition: p, Value: value}, func(_ *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(began))
				if err != nil && errs == nil {
					errs = fmt.Errorf("produce to %s-%d: %w", topic, p, err)
				}
			})
		}
	}
	return func(ctx context.Context) ([]time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, scalePatience)
		defer cancel()
		if err := c.producer.Flush(ctx); err != nil {
			return nil, fmt.Errorf("%d records are not acknowledged: %w", c.producer.BufferedProduceRecords(), err)
		}
		return took, errs // every callback has returned
	}
}

func (c *scale) rss() ([]int64, error) {
	var all []int64
	for _, n := range c.Nodes {
		u, err := load.ReadUsage(n.Pid())
		if err != nil {
			return nil, err
		}
		all = append(all, u.RSSBytes)
	}
	return all, nil
}
