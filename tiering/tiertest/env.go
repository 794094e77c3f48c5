package tiertest

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/segment"
)

// Env is one broker's tiering over a bucket and a metadata KV that outlive it.
type Env struct {
	T          *testing.T
	Mem        *mem.Bucket
	Bucket     *Bucket
	KV         *memkv.KV
	Faults     *Faults
	Source     *Source
	Clock      *TickingClock // of bucket and tiering
	Tune       func(*tiering.Options)
	CacheBlock int // block size of the cache; 0: no cache

	Store *metadata.Store
	Epoch int64 // of the broker's registration
	Tier  *tiering.Tiering
}

// TickingClock moves on by a millisecond whenever it is read, and its timers fire at once: retries cost no time.
type TickingClock struct{ *clock.Manual }

// Now implements clock.Clock.
func (c *TickingClock) Now() time.Time {
	c.Advance(time.Millisecond)
	return c.Manual.Now()
}

// NewTimer implements clock.Clock.
func (c *TickingClock) NewTimer(d time.Duration) *clock.Timer {
	t := c.Manual.NewTimer(d)
	c.Advance(d)
	return t
}

// New returns an Env whose broker has started. tune may be nil.
func New(t *testing.T, tune func(*tiering.Options)) *Env {
	t.Helper()
	e := &Env{T: t, Faults: &Faults{}, Source: NewSource(), Tune: tune, CacheBlock: 4096}
	e.Clock = &TickingClock{clock.NewManual(time.Unix(1_750_000_000, 0))}
	e.Mem = mem.New(mem.Options{Clock: e.Clock, ForbidReuse: true})
	e.Bucket = &Bucket{Bucket: e.Mem, F: e.Faults}
	e.KV = memkv.New(memkv.Options{Fault: func(op string) memkv.Outcome { return e.Faults.step("kv " + op) }})
	e.Restart()
	t.Cleanup(func() { e.Check(e.Store.Close()) })
	return e
}

// Check fails the test on an error.
func (e *Env) Check(err error) {
	e.T.Helper()
	if err != nil {
		e.T.Fatal(err)
	}
}

// Restart starts the broker anew: all that was in memory is gone, the broker registers again under a new epoch.
func (e *Env) Restart() {
	e.T.Helper()
	if e.Store != nil {
		e.Check(e.Store.Close())
	}
	var err error
	e.Store, err = metadata.Open(context.Background(), metadata.Options{KV: e.KV, BrokerID: 1, Logger: slog.New(slog.DiscardHandler), Static: map[string]string{"varve.gc.grace.ms": "60000"}})
	e.Check(err)
	e.Epoch, err = e.Store.RegisterBroker(context.Background(), metadata.Broker{ID: 1, Host: "127.0.0.1", Port: 9092})
	e.Check(err)
	e.Tier = e.NewTiering()
	roots, err := e.Store.Roots(context.Background())
	e.Check(err)
	e.Source.Lead(e.Store.Image(), roots)
}

// NewTiering returns a Tiering of the broker as it is registered now, started but for its loop: tests call RunOnce.
func (e *Env) NewTiering() *tiering.Tiering {
	e.T.Helper()
	o := tiering.Options{Bucket: e.Bucket, Meta: e.Store, Source: e.Source, BrokerID: 1, BrokerEpoch: e.Epoch, Clock: e.Clock, RetryMin: time.Millisecond, RetryMax: time.Millisecond,
		MaxObjectBytes: 16 << 10, PackBelowBytes: 4 << 10, Layout: segment.Layout{BlockBytes: 1 << 10, IndexBytes: 512}}
	if e.CacheBlock > 0 {
		c, err := cache.New(e.Bucket, cache.Options{MemoryBytes: 1 << 20, BlockBytes: e.CacheBlock})
		e.Check(err)
		e.T.Cleanup(func() { e.Check(c.Close()) })
		o.Cache = c
	}
	if e.Tune != nil {
		e.Tune(&o)
	}
	t, err := tiering.New(o)
	e.Check(err)
	e.Check(t.LoadRoots(context.Background()))
	return t
}

// Topic creates a topic and returns the logs of its partitions.
func (e *Env) Topic(name string, partitions int32, configs map[string]string) []*Log {
	e.T.Helper()
	topic, err := e.Store.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: 1, Configs: configs}, false)
	e.Check(err)
	logs := make([]*Log, partitions)
	for i := range logs {
		p, ok := e.Store.Image().Partition(base.TopicPartition{Topic: topic.Name, Partition: int32(i)})
		if !ok {
			e.T.Fatalf("partition %d of %s is not in the image", i, name)
		}
		logs[i] = e.Source.Log(p)
	}
	return logs
}

// Drain takes rounds until everything sealed is tiered.
func (e *Env) Drain() {
	e.T.Helper()
	var last error
	for range 30 {
		_, last = e.Tier.RunOnce(context.Background())
		if len(e.Source.Sealed(1<<62)) == 0 {
			return
		}
	}
	e.T.Fatalf("sealed ranges are left after 30 rounds, last error: %v", last)
}

// CheckReads reads logs back through the cold reader, in fetches of a size, and compares every byte.
func (e *Env) CheckReads(maxBytes int, logs ...*Log) {
	e.T.Helper()
	for _, l := range logs {
		var got []byte
		bounds, ok := e.Tier.Reader().Bounds(l.State.Log)
		if !ok || bounds.End != l.End() {
			e.T.Fatalf("%s: bounds %+v %v, want end %d", l.State.TP, bounds, ok, l.End())
		}
		for at := bounds.Start; at < bounds.End; {
			batches, err := e.Tier.Reader().Read(context.Background(), l.State.Log, at, maxBytes)
			if err != nil || len(batches) == 0 {
				e.T.Fatalf("read %s at %d: %d batches, %v", l.State.TP, at, len(batches), err)
			}
			if batches[0].BaseOffset() > at || batches[0].NextOffset() <= at {
				e.T.Fatalf("read %s at %d starts with [%d, %d)", l.State.TP, at, batches[0].BaseOffset(), batches[0].NextOffset())
			}
			for _, b := range batches {
				got = append(got, b...)
			}
			at = batches[len(batches)-1].NextOffset()
		}
		var want []byte
		for _, b := range l.Batches {
			if b.NextOffset() > bounds.Start {
				want = append(want, b...)
			}
		}
		if !bytes.Equal(got, want) {
			e.T.Fatalf("%s: %d bytes read, %d expected, or they differ", l.State.TP, len(got), len(want))
		}
	}
}

// CheckRoots compares every root with the bucket: the manifest that it names exists and has its numbers.
func (e *Env) CheckRoots() {
	e.T.Helper()
	roots, err := e.Store.Roots(context.Background())
	e.Check(err)
	for log, root := range roots {
		m, err := e.Tier.Load(context.Background(), root)
		e.Check(err)
		if m.End != root.TieredEnd || m.LogStart != root.Start || m.Bytes() != root.Bytes || m.Segments() != root.Objects {
			e.T.Fatalf("root of %s %+v does not match its manifest: end %d, start %d", log, root, m.End, m.LogStart)
		}
	}
}

// Fsck checks the bucket with a grace period, as of the Env's clock.
func (e *Env) Fsck(grace time.Duration) tiering.Report {
	e.T.Helper()
	rep, err := tiering.Fsck(context.Background(), e.Mem, tiering.FsckOptions{Grace: grace, Now: e.Clock.Now()})
	e.Check(err)
	return rep
}

// Records decodes all records of a log from an offset on.
func (e *Env) Records(l *Log, from base.Offset) []record.Record {
	e.T.Helper()
	var out []record.Record
	for _, b := range l.Batches {
		e.Check(b.Each(func(r record.Record) bool {
			if r.Offset >= from {
				out = append(out, r)
			}
			return true
		}))
	}
	return out
}

// Name makes a test name of a number.
func Name(n int) string { return strconv.Itoa(n) }
