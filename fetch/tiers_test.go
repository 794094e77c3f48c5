package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/objstore/fault"
	"github.com/varvelog/varve/objstore/mem"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
)

// source shows ingest to tiering, as package broker does.
type source struct{ in *ingest.Ingest }

func (s source) Sealed(maxBytes int64) (out []tiering.SealedRange) {
	for _, r := range s.in.Sealed(maxBytes) {
		out = append(out, tiering.SealedRange{
			Log: r.Log, TP: r.TP, TopicID: r.TopicID, Base: r.Base, End: r.End, Bytes: r.Bytes, MaxTimestamp: r.MaxTimestamp,
			LogStart: r.LogStart, LeaderEpoch: r.LeaderEpoch, Epochs: r.Epochs, Producers: r.Producers, SealedAtMs: r.SealedAtMs,
		})
	}
	return out
}

func (s source) SealedC() <-chan struct{} { return s.in.SealedC() }

func (s source) ReadSealed(ctx context.Context, r tiering.SealedRange, emit func(record.Batch) error) error {
	return s.in.ReadSealed(ctx, r.Log, r.Base, r.End, emit)
}

func (s source) Tiered(log base.LogID, _ base.LeaderEpoch, end base.Offset) { s.in.Tiered(log, end) }

// rig is a broker without its network: metadata, hot store, ingest, tiering over a bucket in memory, fetch.
type rig struct {
	t       *testing.T
	meta    *metadata.Store
	store   *hot.Store
	in      *ingest.Ingest
	tiering *tiering.Tiering
	bucket  *fault.Bucket
	svc     *fetch.Service
	cold    *cold
}

// cold counts the cold reads, and holds them up while held is not nil.
type cold struct {
	fetch.Cold
	reads, under, most atomic.Int64
	held               atomic.Pointer[chan struct{}]
}

func (c *cold) Read(ctx context.Context, log base.LogID, from base.Offset, maxBytes int) ([]record.Batch, error) {
	c.reads.Add(1)
	n := c.under.Add(1)
	defer c.under.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	if held := c.held.Load(); held != nil {
		select {
		case <-*held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c.Cold.Read(ctx, log, from, maxBytes)
}

func newRig(t *testing.T, tailBytes int64, opts fetch.Options) *rig {
	t.Helper()
	r := &rig{t: t}
	ctx := t.Context()
	var err error
	r.meta, err = metadata.Open(ctx, metadata.Options{KV: memkv.New(memkv.Options{}), BrokerID: 1})
	r.check(err)
	epoch, err := r.meta.RegisterBroker(ctx, metadata.Broker{ID: 1, Host: "h", Port: 1})
	r.check(err)
	store, err := hot.Open(hot.Options{Dir: "hot", FS: vfs.NewMem(), MemTableBytes: 1 << 20, FreeSpace: func() (uint64, error) { return 1 << 40, nil }})
	r.check(err)
	r.store = store
	r.in, err = ingest.New(ingest.Options{
		Store: store, Meta: r.meta, Broker: 1, TailBytes: tailBytes, HotBytes: 1, MaxSealBytes: 20 << 10, TickEvery: time.Millisecond,
	})
	r.check(err)
	r.in.Start()
	r.bucket = fault.Wrap(mem.New(mem.Options{}), clock.Real{})
	r.tiering, err = tiering.New(tiering.Options{
		Bucket: r.bucket, Meta: r.meta, Source: source{r.in}, BrokerID: 1, BrokerEpoch: epoch, PutAttempts: 1, RetryMin: time.Millisecond,
	})
	r.check(err)
	r.cold = &cold{Cold: r.tiering.Reader()}
	opts.Ingest, opts.Meta, opts.Cold = r.in, r.meta, r.cold
	r.svc = fetch.New(opts)
	t.Cleanup(func() {
		r.tiering.Stop()
		r.check(errors.Join(r.in.Stop(), store.Close(), r.meta.Close()))
	})
	return r
}

func (r *rig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) topic(name string, configs map[string]string) base.TopicPartition {
	r.t.Helper()
	_, err := r.meta.CreateTopic(context.Background(), metadata.TopicSpec{Name: name, Partitions: 1, ReplicationFactor: 1, Configs: configs}, false)
	r.check(err)
	return base.TopicPartition{Topic: name}
}

// model is what was appended.
type model struct {
	batches []record.Batch
	times   []int64 // by offset
}

const firstTs = int64(1_700_000_000_000)

// put appends a batch of n records of one timestamp each, out of order, and adds it to the model.
func (r *rig) put(tp base.TopicPartition, m *model, n int, codec record.Codec) {
	r.t.Helper()
	rs := make([]record.Record, n)
	for i := range rs {
		k := int64(len(m.times) + i)
		rs[i] = record.Record{Offset: base.Offset(i), Timestamp: firstTs + (k*7919)%1000*10, Value: fmt.Appendf(nil, "value %d of %s", k, tp)}
	}
	b, err := record.Build(record.BuildHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Codec: codec}, rs)
	r.check(err)
	rec := r.in.Append(context.Background(), -1, 60000, []ingest.AppendRequest{{TP: tp, Records: b, ZstdAllowed: true}})
	<-rec.Done()
	r.check(rec.Results()[0].Err)
	m.batches = append(m.batches, bytes.Clone(b))
	for i := range rs {
		m.times = append(m.times, rs[i].Timestamp)
	}
}

func (r *rig) status(tp base.TopicPartition) ingest.Status {
	r.t.Helper()
	s, err := r.in.Status(tp)
	r.check(err)
	return s
}

// tier brings what is there to the bucket and waits until none of it is hot.
func (r *rig) tier(tp base.TopicPartition) {
	r.t.Helper()
	r.until("all of it cold", func() bool {
		_, err := r.tiering.RunOnce(context.Background())
		r.check(err)
		s := r.status(tp)
		return s.HotStart == s.LogEnd
	})
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (r *rig) one(tp base.TopicPartition, from base.Offset, maxBytes int32) fetch.PartitionResponse {
	r.t.Helper()
	return r.svc.Fetch(context.Background(), &fetch.Request{
		MaxBytes: math.MaxInt32, Partitions: []fetch.PartitionRequest{part(tp, from, maxBytes)},
	})[0]
}

func part(tp base.TopicPartition, from base.Offset, maxBytes int32) fetch.PartitionRequest {
	return fetch.PartitionRequest{TP: tp, Offset: from, MaxBytes: maxBytes, CurrentEpoch: -1, LastFetchedEpoch: -1}
}

// compare reads every offset under several limits, and looks times up, and compares with the model.
func (r *rig) compare(tp base.TopicPartition, m *model, start base.Offset, topics string) {
	r.t.Helper()
	end := base.Offset(len(m.times))
	for _, limit := range []int32{1, 3000, 1 << 20} {
		for from := start; from < end; {
			p := r.one(tp, from, limit)
			if p.Err != nil || p.HighWatermark != end || p.LogStart != start || p.LastStable != end {
				r.t.Fatalf("%s: fetch at %d: %+v", topics, from, p)
			}
			if len(p.Batches) == 0 || p.Batches[0].BaseOffset() > from || p.Batches[0].NextOffset() <= from {
				r.t.Fatalf("%s: fetch at %d, limit %d: %d batches", topics, from, limit, len(p.Batches))
			}
			if p.Bytes > int(limit) && len(p.Batches) > 1 {
				r.t.Fatalf("%s: %d bytes in %d batches, limit %d", topics, p.Bytes, len(p.Batches), limit)
			}
			for i, b := range p.Batches {
				if i > 0 && b.BaseOffset() != p.Batches[i-1].NextOffset() {
					r.t.Fatalf("%s: gap at %d", topics, b.BaseOffset())
				}
				r.check(sameBatch(m, b))
			}
			from = p.Batches[len(p.Batches)-1].NextOffset()
		}
	}
	r.compareTimes(tp, m, start, topics)
}

func sameBatch(m *model, got record.Batch) error {
	at := base.Offset(0)
	for _, b := range m.batches {
		if at == got.BaseOffset() {
			want := record.Batch(bytes.Clone(b))
			want.SetBaseOffset(at)
			want.SetLeaderEpoch(got.LeaderEpoch())
			if !bytes.Equal(want, got) {
				return fmt.Errorf("batch at %d differs", at)
			}
			return nil
		}
		at = b.NextOffset()
	}
	return fmt.Errorf("no batch begins at %d", got.BaseOffset())
}

func (r *rig) compareTimes(tp base.TopicPartition, m *model, start base.Offset, topics string) {
	r.t.Helper()
	ctx := context.Background()
	for ts := firstTs - 10; ts <= firstTs+10_010; ts += 333 {
		want := base.NoOffset
		for off := start; off < base.Offset(len(m.times)); off++ {
			if m.times[off] >= ts {
				want = off
				break
			}
		}
		got, err := r.svc.ListOffset(ctx, tp, -1, ts, false)
		if err != nil || got.Offset != want || want >= 0 && got.Timestamp != m.times[want] {
			r.t.Fatalf("%s: time %d: %+v, %v, want offset %d", topics, ts-firstTs, got, err, want)
		}
	}
	best := start
	for off := start; off < base.Offset(len(m.times)); off++ {
		if m.times[off] > m.times[best] {
			best = off
		}
	}
	got, err := r.svc.ListOffset(ctx, tp, -1, fetch.TimestampMax, false)
	// Kafka's may lie below the log start too, until the segment goes (facts/protocol.md 3.11); ours while it is tiered.
	if err != nil || got.Offset >= start && (got.Offset != best || got.Timestamp != m.times[best]) {
		r.t.Fatalf("%s: largest timestamp: %+v, %v, want offset %d", topics, got, err, best)
	}
	s := r.status(tp)
	tiered := s.TieredEnd - 1
	if s.TieredEnd <= s.LogStart {
		tiered = base.NoOffset
	}
	for special, want := range map[int64]base.Offset{
		fetch.TimestampLatest: base.Offset(len(m.times)), fetch.TimestampEarliest: start, fetch.TimestampEarliestLocal: s.HotStart,
		fetch.TimestampLatestTiered: tiered, fetch.TimestampEarliestPendingUpload: max(s.TieredEnd, start),
	} {
		if got, err := r.svc.ListOffset(ctx, tp, -1, special, true); err != nil || got.Offset != want || got.Timestamp != -1 {
			r.t.Fatalf("%s: timestamp %d: %+v, %v, want %d", topics, special, got, err, want)
		}
	}
}

// TestTiersGiveTheSame reads a log while all of it is hot, while all of it is cold, while the newer part is hot, and after
// records were deleted in the middle of a cold batch (I8).
func TestTiersGiveTheSame(t *testing.T) {
	r := newRig(t, 4<<10, fetch.Options{})
	tp := r.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"})
	m := &model{}
	codecs := []record.Codec{record.CodecNone, record.CodecZstd, record.CodecLZ4}
	for i := range 30 {
		r.put(tp, m, 20+i*7%60, codecs[i%3])
	}
	r.compare(tp, m, 0, "hot")
	r.tier(tp)
	r.compare(tp, m, 0, "cold")
	for i := range 20 {
		r.put(tp, m, 20+i*5%60, codecs[i%3])
	}
	if s := r.status(tp); s.HotStart == 0 || s.HotStart == s.LogEnd {
		t.Fatalf("not mixed: %+v", s)
	}
	r.compare(tp, m, 0, "mixed")
	_, err := r.in.DeleteRecords(tp, 333)
	r.check(err)
	r.compareTimes(tp, m, 333, "after DeleteRecords")
	if p := r.one(tp, 332, 1000); !errors.Is(p.Err, kerr.OffsetOutOfRange) || p.HighWatermark != -1 || p.LogStart != -1 {
		t.Fatalf("below the log start: %+v", p)
	}
	if p := r.one(tp, base.Offset(len(m.times))+1, 1000); !errors.Is(p.Err, kerr.OffsetOutOfRange) {
		t.Fatalf("above the log end: %+v", p)
	}
	nobody, cancel := context.WithCancel(t.Context())
	cancel()
	out := r.svc.Fetch(nobody, &fetch.Request{Partitions: []fetch.PartitionRequest{part(tp, base.Offset(len(m.times))+1, 1000)}})
	if !errors.Is(out[0].Err, kerr.NotLeaderForPartition) || out[0].HighWatermark != -1 {
		t.Fatalf("above the log end of a leader that cannot make sure that it still leads: %+v", out[0])
	}
}

// TestReadsDuringTiering reads from the start again and again while ranges are closed, uploaded and trimmed under it.
func TestReadsDuringTiering(t *testing.T) {
	r := newRig(t, 4<<10, fetch.Options{ColdWait: func() time.Duration { return 30 * time.Second }})
	tp := r.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"})
	m := &model{}
	for i := range 60 {
		r.put(tp, m, 30, record.CodecNone)
		_, err := r.tiering.RunOnce(context.Background())
		r.check(err)
		if i%6 == 5 {
			r.compare(tp, m, 0, fmt.Sprint("round ", i))
		}
	}
	if r.cold.reads.Load() == 0 {
		t.Fatal("nothing was read from the bucket")
	}
}

// TestColdReadsAreParallelAndPatient: the cold partitions of one Fetch are read at the same time, and hot ones are answered
// after remote.fetch.max.wait.ms whatever the bucket does.
func TestColdReadsAreParallelAndPatient(t *testing.T) {
	r := newRig(t, 1, fetch.Options{ColdWait: func() time.Duration { return 50 * time.Millisecond }})
	var req fetch.Request
	req.MaxBytes, req.MinBytes, req.MaxWaitMs, req.ReadCommitted = 1<<20, 1<<20, 60000, true
	for i := range 4 {
		m := &model{}
		tp := r.topic(fmt.Sprint("cold", i), map[string]string{"varve.tiering.max.lag.ms": "100"})
		r.put(tp, m, 50, record.CodecNone)
		r.tier(tp)
		req.Partitions = append(req.Partitions, part(tp, 0, 1<<20))
	}
	hotTP, m := r.topic("hot", nil), &model{}
	r.put(hotTP, m, 50, record.CodecNone)
	req.Partitions = append(req.Partitions, part(hotTP, 0, 1<<20))
	held := make(chan struct{})
	r.cold.held.Store(&held)
	begin := time.Now()
	out := r.svc.Fetch(context.Background(), &req)
	if took := time.Since(begin); took > 20*time.Second {
		t.Fatalf("a slow bucket held the answer up for %s", took)
	}
	for i, p := range out {
		if p.Err != nil || p.Aborted == nil || (i == 4) != (len(p.Batches) == 1) {
			t.Fatalf("partition %d: %+v", i, p)
		}
	}
	if n := r.cold.most.Load(); n != 4 {
		t.Fatalf("%d cold reads at the same time, want 4", n)
	}
	close(held)
	for i, p := range r.svc.Fetch(context.Background(), &req) {
		if p.Err != nil || len(p.Batches) != 1 {
			t.Fatalf("partition %d: %+v", i, p)
		}
	}
}

// TestBucketOutage leaves hot reads and appends served, and answers cold ones with what clients meet by asking again (I13).
func TestBucketOutage(t *testing.T) {
	r := newRig(t, 1, fetch.Options{})
	tp, m := r.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"}), &model{}
	r.put(tp, m, 50, record.CodecNone)
	r.tier(tp)
	r.put(tp, m, 50, record.CodecNone)
	r.bucket.SetRules(fault.When(func(fault.Op) bool { return true }, fault.Effect{Err: fault.ErrInjected}))
	out := r.svc.Fetch(context.Background(), &fetch.Request{
		MaxBytes: 1 << 20, MinBytes: 1 << 20, MaxWaitMs: 60000, Partitions: []fetch.PartitionRequest{part(tp, 0, 1<<20), part(tp, 50, 1<<20)},
	})
	if !errors.Is(out[0].Err, kerr.KafkaStorageError) {
		t.Fatalf("cold: %v", out[0].Err)
	}
	if out[1].Err != nil || len(out[1].Batches) != 1 {
		t.Fatalf("hot: %+v", out[1])
	}
	if _, err := r.svc.ListOffset(context.Background(), tp, -1, firstTs, false); !errors.Is(err, kerr.KafkaStorageError) {
		t.Fatalf("look-up by time: %v", err)
	}
	r.put(tp, m, 10, record.CodecNone)
	r.bucket.SetRules()
	r.compare(tp, m, 0, "after the outage")
}

// TestLimits: the first partition with data may exceed the limits by one batch, later ones may not (KIP-74).
func TestLimits(t *testing.T) {
	r := newRig(t, 4<<10, fetch.Options{})
	var tps []base.TopicPartition
	m := &model{}
	for i := range 3 {
		tps = append(tps, r.topic(fmt.Sprint("t", i), nil))
		m = &model{}
		for range 3 {
			r.put(tps[i], m, 10, record.CodecNone)
		}
	}
	size := len(m.batches[0])
	get := func(maxBytes int32, parts ...fetch.PartitionRequest) (n []int) {
		for _, p := range r.svc.Fetch(context.Background(), &fetch.Request{MaxBytes: maxBytes, Partitions: parts}) {
			r.check(p.Err)
			n = append(n, len(p.Batches))
		}
		return n
	}
	want := func(got []int, want ...int) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%v batches, want %v", got, want)
		}
	}
	want(get(1, part(tps[0], 30, 1), part(tps[1], 0, 1), part(tps[2], 0, 1)), 0, 1, 0)
	want(get(1<<20, part(tps[0], 0, 0), part(tps[1], 0, int32(size-1)), part(tps[2], 0, int32(2*size+size/2))), 1, 0, 2)
	want(get(int32(4*size+size/2), part(tps[0], 0, 1<<20), part(tps[1], 0, 1<<20), part(tps[2], 0, 1<<20)), 3, 1, 0)
}

// TestOldClientsGetWhatLiesBeforeZstd: versions below 10 read up to the first zstd batch and fail there.
func TestOldClientsGetWhatLiesBeforeZstd(t *testing.T) {
	r := newRig(t, 4<<10, fetch.Options{})
	tp, m := r.topic("t", nil), &model{}
	r.put(tp, m, 10, record.CodecNone)
	r.put(tp, m, 10, record.CodecZstd)
	get := func(from base.Offset) fetch.PartitionResponse {
		return r.svc.Fetch(context.Background(), &fetch.Request{MaxBytes: 1 << 20, NoZstd: true, Partitions: []fetch.PartitionRequest{part(tp, from, 1<<20)}})[0]
	}
	if p := get(0); p.Err != nil || len(p.Batches) != 1 {
		t.Fatalf("before zstd: %+v", p)
	}
	if p := get(10); !errors.Is(p.Err, kerr.UnsupportedCompressionType) || len(p.Batches) != 0 || p.HighWatermark != -1 {
		t.Fatalf("zstd: %+v", p)
	}
}

// TestLongPoll waits for MinBytes, wakes on a commit, and is answered at once on an error or the topic's deletion.
func TestLongPoll(t *testing.T) {
	r := newRig(t, 4<<10, fetch.Options{})
	tp, m := r.topic("t", nil), &model{}
	r.put(tp, m, 10, record.CodecNone)
	size := len(m.batches[0])
	answer := make(chan []fetch.PartitionResponse, 1)
	poll := func(minBytes int, from base.Offset) {
		req := &fetch.Request{MaxBytes: 1 << 20, MinBytes: int32(minBytes), MaxWaitMs: 600000, Partitions: []fetch.PartitionRequest{part(tp, from, 1<<20)}}
		go func() { answer <- r.svc.Fetch(context.Background(), req) }()
	}
	poll(3*size, 0)
	for range 2 {
		select {
		case out := <-answer:
			t.Fatalf("answered before min bytes: %+v", out)
		default:
		}
		r.put(tp, m, 11, record.CodecNone)
	}
	if out := <-answer; out[0].Err != nil || len(out[0].Batches) != 3 {
		t.Fatalf("%+v", out)
	}
	poll(1, 1000)
	if out := <-answer; !errors.Is(out[0].Err, kerr.OffsetOutOfRange) {
		t.Fatalf("%+v", out)
	}
	poll(1, 32)
	topic, _ := r.meta.Image().Topic("t")
	r.check(r.meta.DeleteTopic(context.Background(), topic.ID))
	if out := <-answer; !errors.Is(out[0].Err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("%+v", out)
	}
	tp = r.topic("t", nil)
	if p := r.svc.Fetch(context.Background(), &fetch.Request{MaxBytes: 1, Partitions: []fetch.PartitionRequest{{TP: tp, TopicID: topic.ID, CurrentEpoch: -1, LastFetchedEpoch: -1}}})[0]; !errors.Is(p.Err, kerr.UnknownTopicID) {
		t.Fatalf("old topic id: %+v", p)
	}
}

// TestTopicsComeAndGo deletes topics and makes them again under producers, consumers and the archiver. Offsets of one topic id
// are dense and begin at 0, nobody hangs, and nothing of the deleted topics stays on the disk or in the tail.
func TestTopicsComeAndGo(t *testing.T) {
	r := newRig(t, 16<<10, fetch.Options{})
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	expected := func(err error) bool {
		return err == nil || errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.NotLeaderForPartition)
	}
	tp := base.TopicPartition{Topic: "t"}
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				b, err := record.Build(record.BuildHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, []record.Record{{Value: make([]byte, 3000)}})
				if err != nil {
					t.Error(err)
				}
				rec := r.in.Append(ctx, -1, 60000, []ingest.AppendRequest{{TP: tp, Records: b}})
				<-rec.Done()
				if err := rec.Results()[0].Err; !expected(err) && ctx.Err() == nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for from := base.Offset(0); ctx.Err() == nil; {
				p := r.svc.Fetch(ctx, &fetch.Request{MaxBytes: 1 << 20, MinBytes: 1, MaxWaitMs: 50, Partitions: []fetch.PartitionRequest{part(tp, from, 1<<20)}})[0]
				if !expected(p.Err) && ctx.Err() == nil {
					t.Errorf("fetch at %d: %v", from, p.Err)
				}
				if p.Err != nil {
					from = 0
				}
				for _, b := range p.Batches {
					if b.BaseOffset() > from {
						t.Errorf("fetch at %d begins at %d", from, b.BaseOffset())
					}
					from = b.NextOffset()
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _ = r.tiering.RunOnce(ctx) // ranges of deleted topics fail
			<-time.After(time.Millisecond)
		}
	})
	for range 15 {
		r.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"})
		r.until("some batches", func() bool { s, err := r.in.Status(tp); return err == nil && s.HighWatermark > 20 })
		topic, _ := r.meta.Image().Topic("t")
		r.check(r.meta.DeleteTopic(ctx, topic.ID))
	}
	stop()
	wg.Wait()
	r.until("rows of deleted topics dropped", func() bool {
		logs, err := r.store.Logs()
		r.check(err)
		return len(logs) == 0
	})
}
