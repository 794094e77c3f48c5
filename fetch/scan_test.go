package fetch_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// gate is a clock that stops who asks it for the time while it is closed.
type gate struct {
	clock.Real
	sync.RWMutex
}

func (g *gate) Now() time.Time {
	g.RLock()
	defer g.RUnlock()
	return g.Real.Now()
}

// firstTimer is a clock that does something when it is asked for a timer the first time.
type firstTimer struct {
	clock.Real
	do func()
}

func (c firstTimer) NewTimer(d time.Duration) *clock.Timer {
	c.do()
	return c.Real.NewTimer(d)
}

// A coordinator hears of a leadership before ingest does, and its broker has led the partition before: what leaders in between
// committed is not in the log as it is here yet (I15).
func TestScanWaitsForTheLeadership(t *testing.T) {
	r := &rig{t: t}
	var err error
	r.meta, err = metadata.Open(t.Context(), metadata.Options{KV: memkv.New(memkv.Options{}), BrokerID: 1})
	r.check(err)
	_, err = r.meta.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "h", Port: 1})
	r.check(err)
	r.store, err = hot.Open(hot.Options{Dir: "hot", FS: vfs.NewMem(), FreeSpace: func() (uint64, error) { return 1 << 40, nil }})
	r.check(err)
	g := &gate{}
	r.in, err = ingest.New(ingest.Options{Store: r.store, Meta: r.meta, Broker: 1, Clock: g})
	r.check(err)
	r.in.Start()
	open := sync.OnceFunc(g.Unlock)
	defer func() { r.check(r.in.Stop()); r.check(r.store.Close()); r.check(r.meta.Close()) }()

	_, err = r.meta.CreateTopic(t.Context(), metadata.TopicSpec{Name: "t", Partitions: 2, ReplicationFactor: 1}, false)
	r.check(err)
	tps := []base.TopicPartition{{Topic: "t"}, {Topic: "t", Partition: 1}}
	for _, tp := range tps {
		r.put(tp, &model{}, 1, record.CodecNone)
	}
	reign, err := r.meta.ClaimController(t.Context())
	r.check(err)
	g.Lock() // ingest comes as far as the first partition
	defer open()
	var changes []metadata.PartitionChange
	for _, tp := range tps {
		p, _ := r.meta.Image().Partition(tp)
		changes = append(changes, metadata.PartitionChange{Partition: *p, Next: controller.State{
			Replicas: p.Replicas, ISR: p.ISR, Leader: 1, LeaderEpoch: p.LeaderEpoch + 2, PartitionEpoch: p.PartitionEpoch + 1,
		}})
	}
	_, err = r.meta.ApplyPartitionChanges(t.Context(), reign, changes)
	r.check(err)
	svc := fetch.New(fetch.Options{Ingest: r.in, Meta: r.meta, Clock: firstTimer{do: open}})
	seen := 0
	r.check(svc.Scan(context.Background(), tps[1], func(record.Batch) error {
		seen++
		if got, want := r.status(tps[1]).LeaderEpoch, changes[1].Next.LeaderEpoch; got != want {
			t.Errorf("scanned in epoch %d, led in %d", got, want)
		}
		return nil
	}))
	if seen != 1 {
		t.Errorf("%d batches", seen)
	}
}
