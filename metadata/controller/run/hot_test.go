package run_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller/run"
)

// hotStore tells what the brokers of a cluster have: each replica that is in sync has all of its partition.
type hotStore struct {
	c  *cluster
	mu struct {
		sync.Mutex
		sizes  map[base.TopicPartition]int64
		silent base.BrokerID // does not answer
		asked  int
	}
}

func (h *hotStore) read(_ context.Context, b metadata.Broker) (run.HotSizes, error) {
	image := h.c.node(b.ID).store.Image()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.asked++
	if h.mu.silent == b.ID {
		return nil, errors.New("no answer")
	}
	out := run.HotSizes{}
	for p := range image.AllPartitions() {
		if slices.Contains(p.ISR, b.ID) {
			out[p.TP] = h.mu.sizes[p.TP]
		}
	}
	return out, nil
}

func (h *hotStore) silence(id base.BrokerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.silent = id
}

// loads are the hot bytes of brokers 1 to n by where the replicas are.
func (h *hotStore) loads(n int) []int64 {
	out := make([]int64, n)
	image := h.c.node(1).store.Image()
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range image.AllPartitions() {
		for _, id := range p.Replicas {
			out[id-1] += h.mu.sizes[p.TP]
		}
	}
	return out
}

func (c *cluster) set(settings map[string]string) {
	c.t.Helper()
	for name, value := range settings {
		r := metadata.Resource{Type: metadata.ResourceBroker}
		if err := c.node(1).store.IncrementalAlterConfigs(context.Background(), r, []metadata.ConfigOp{{Name: name, Value: &value}}, false); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Two dozen partitions of two replicas on four brokers, of which broker 1 and its neighbours have the large ones.
func TestHotBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		h := &hotStore{c: c}
		h.mu.sizes = map[base.TopicPartition]int64{}
		c.hot = h.read
		for id := base.BrokerID(1); id <= 4; id++ {
			c.start(id)
		}
		c.elect(1)
		c.settle()
		const rate, interval = 10, 20 // bytes per second, seconds
		c.set(map[string]string{
			"varve.balance.hot.enable": "false", "varve.balance.hot.slack.bytes": "100", "varve.balance.hot.slack.ratio": "0.1",
			"varve.balance.hot.bytes.per.second": strconv.Itoa(rate), "varve.balance.hot.interval.ms": strconv.Itoa(interval * 1000),
		})
		c.create(1, "t", 24, 2)
		c.settle()
		h.mu.Lock()
		for p := range c.node(1).store.Image().AllPartitions() {
			if h.mu.sizes[p.TP] = 1; p.Replicas[0] == 1 {
				h.mu.sizes[p.TP] = 90
			}
		}
		h.mu.Unlock()
		before := h.loads(4)
		unchanged := func(what string) {
			t.Helper()
			time.Sleep(10 * time.Minute) // of the bubble
			if now := h.loads(4); !slices.Equal(now, before) {
				t.Fatalf("%s: %v, before %v", what, now, before)
			}
		}
		unchanged("it is off")
		if h.mu.asked > 0 {
			t.Fatal("brokers were asked for nothing")
		}
		h.silence(3)
		c.set(map[string]string{"varve.balance.hot.enable": "true"})
		unchanged("a broker does not answer")
		h.silence(0)
		c.set(map[string]string{"varve.balance.replicas.enable": "false"})
		unchanged("nothing moves for its number either")
		c.set(map[string]string{"varve.balance.replicas.enable": "true"})
		c.disks[4]++ // it does not come back as it was, but nobody is asked while it is away
		c.stop(4)
		unchanged("a broker is missing")
		c.start(4)
		c.settle()

		// Each interval pays for one partition, about: its bytes move at the rate.
		c.settle()
		began := time.Now()
		var moved int64
		for last := h.loads(4); ; last = h.loads(4) {
			now := h.loads(4)
			if slices.Max(now)-slices.Min(now) <= 100 {
				break
			}
			time.Sleep(time.Second) // of the bubble
			synctest.Wait()
			now = h.loads(4)
			for i := range now {
				moved += max(0, now[i]-last[i])
			}
			took := int64(time.Since(began).Seconds())
			if moved > (took+interval)*rate {
				t.Fatalf("%d bytes within %d s, at %d per second", moved, took, rate)
			}
			if took > 600 {
				t.Fatalf("it does not end: %v, at first %v", now, before)
			}
		}
		c.settle()
		before = h.loads(4)
		revision := c.node(1).store.Image().Revision()
		unchanged("it is done")
		if now := c.node(1).store.Image().Revision(); now != revision {
			t.Errorf("revision %d, %d ten minutes ago: something is written again and again", now, revision)
		}
	})
}
