package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/crashfs"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// env is one broker's ingest over a disk in memory and a KV in memory. crash loses what was not synced; the KV survives.
type env struct {
	t     *testing.T
	fs    *vfs.MemFS
	kv    *memkv.KV
	opts  ingest.Options
	meta  *metadata.Store
	store *hot.Store
	*ingest.Ingest

	id         base.BrokerID                 // 0: 1
	disk       func(vfs.FS) vfs.FS           // nil: as it is
	wrap       func(*hot.Store) ingest.Store // nil: as it is
	replicates bool                          // the broker is one of a cluster
	stopped    bool                          // the test has stopped ingest itself
}

func newEnv(t *testing.T) *env {
	e := &env{t: t, fs: vfs.NewCrashableMem()}
	e.start()
	return e
}

func (e *env) start() {
	e.kv = memkv.New(memkv.Options{})
	e.open()
	e.t.Cleanup(func() { e.close() })
}

func (e *env) open() {
	e.t.Helper()
	ctx := context.Background()
	if e.id == 0 {
		e.id = 1
	}
	var err error
	e.meta, err = metadata.Open(ctx, metadata.Options{KV: e.kv, BrokerID: e.id})
	e.check(err)
	epoch, err := e.meta.RegisterBroker(ctx, metadata.Broker{ID: e.id, Host: "localhost", Port: 9092})
	e.check(err)
	disk := crashfs.Wrap(e.fs)
	if e.disk != nil {
		disk = e.disk(disk)
	}
	e.store, err = hot.Open(hot.Options{
		Dir: "hot", FS: disk, MemTableBytes: 8 << 20, OnFatal: func(err error) { e.t.Error(err) },
		FreeSpace: func() (uint64, error) { return 1 << 40, nil },
	})
	e.check(err)
	roots, err := e.meta.Roots(ctx)
	e.check(err)
	o := e.opts
	o.Store, o.Meta, o.Broker, o.Roots = e.store, e.meta, e.id, roots
	if e.replicates {
		o.Replication = &ingest.Replication{BrokerEpoch: epoch}
	}
	if e.wrap != nil {
		o.Store = e.wrap(e.store)
	}
	e.Ingest, err = ingest.New(o)
	e.check(err)
	e.Start()
}

func (e *env) close() {
	e.t.Helper()
	if !e.stopped {
		e.check(e.Stop())
	}
	e.check(e.store.Close())
	e.check(e.meta.Close())
}

// crash ends the broker as kill -9 and a power cut would, and starts it again.
func (e *env) crash() {
	e.t.Helper()
	clone := e.fs.CrashClone(vfs.CrashCloneCfg{})
	e.close()
	e.fs = clone
	e.open()
}

func (e *env) check(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) topic(name string, configs map[string]string) base.TopicPartition {
	e.t.Helper()
	_, err := e.meta.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: 1, ReplicationFactor: 1, Configs: configs}, false)
	e.check(err)
	return base.TopicPartition{Topic: name}
}

// batch builds what a producer sends: n records of one key with the given timestamps' start, 1 ms apart.
func batch(t *testing.T, n int, ts int64, h record.BuildHeader) []byte {
	t.Helper()
	rs := make([]record.Record, n)
	for i := range rs {
		rs[i] = record.Record{Offset: base.Offset(i), Timestamp: ts + int64(i), Key: []byte("k"), Value: fmt.Appendf(nil, "value %d", i)}
	}
	if h.ProducerID == 0 {
		h.ProducerID, h.BaseSequence, h.ProducerEpoch = base.NoProducerID, -1, -1
	}
	b, err := record.Build(h, rs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put appends and waits.
func (e *env) put(tp base.TopicPartition, records []byte) ingest.AppendResult {
	e.t.Helper()
	r := e.Append(context.Background(), -1, 30000, []ingest.AppendRequest{{TP: tp, Records: records, ZstdAllowed: true}})
	<-r.Done()
	return r.Results()[0]
}

func (e *env) mustPut(tp base.TopicPartition, records []byte) base.Offset {
	e.t.Helper()
	res := e.put(tp, records)
	e.check(res.Err)
	return res.BaseOffset
}

func (e *env) part(tp base.TopicPartition) *ingest.Partition {
	e.t.Helper()
	p, err := e.Partition(tp)
	e.check(err)
	return p
}

// replan is where a reader that planned with v goes on whose read at from found that part of it was trimmed since.
func replan(p *ingest.Partition, v *ingest.View, from base.Offset, err error) (base.Offset, bool) {
	now, _ := p.View()
	return now.HotStart, errors.Is(err, kerr.OffsetOutOfRange) && now.HotStart > from && now.HotStart <= v.TieredEnd
}

// readAll returns the hot batches from a partition's first served offset to its high watermark.
func (e *env) readAll(tp base.TopicPartition) []record.Batch {
	e.t.Helper()
	p := e.part(tp)
	v, err := p.View()
	e.check(err)
	var out []record.Batch
	for from := v.Served; from < v.HighWatermark; {
		bs, err := p.ReadHot(from, v.HighWatermark, 1<<20)
		if next, trimmed := replan(p, &v, from, err); trimmed {
			from, out = next, nil
			continue
		}
		e.check(err)
		out = append(out, bs...)
		from = bs[len(bs)-1].NextOffset()
	}
	return out
}

// until waits for a condition that housekeeping brings about.
func (e *env) until(what string, ok func() bool) {
	e.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			e.t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func isCode(err error, want *kerr.Error) bool { return errors.Is(err, want) }

// unfence lets every broker lead.
func (e *env) unfence() {
	e.t.Helper()
	reign, err := e.meta.ClaimController(e.t.Context())
	e.check(err)
	for _, b := range e.meta.Image().AllBrokers() {
		e.check(e.meta.UnfenceBroker(e.t.Context(), reign, b.ID, b.Epoch))
		e.until("no broker is fenced", func() bool { b, _ := e.meta.Image().BrokerByID(b.ID); return !b.Fenced })
	}
}

// decide gives a partition its next state, over any broker's metadata. No replicas: those that it has; no ISR: all replicas.
func (e *env) decide(meta *metadata.Store, tp base.TopicPartition, next controller.State) {
	e.t.Helper()
	reign, err := meta.ClaimController(e.t.Context())
	e.check(err)
	p, _ := meta.Image().Partition(tp)
	if next.Replicas == nil {
		next.Replicas = p.Replicas
	}
	if next.ISR == nil {
		next.ISR = next.Replicas
	}
	next.PartitionEpoch = p.PartitionEpoch + 1
	applied, err := meta.ApplyPartitionChanges(e.t.Context(), reign, []metadata.PartitionChange{{Partition: *p, Next: next}})
	e.check(err)
	if !applied[0] {
		e.t.Fatalf("the state of %s was not set", tp)
	}
}
