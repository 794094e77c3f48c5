package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

const nowTs = int64(1_700_000_000_000)

func TestAppendAssignsDenseOffsets(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	for i := range 10 {
		if got, want := e.mustPut(tp, batch(t, 3, nowTs, record.BuildHeader{})), base.Offset(i*3); got != want {
			t.Fatalf("batch %d has base offset %d, want %d", i, got, want)
		}
	}
	s, err := e.Status(tp)
	e.check(err)
	if s.HighWatermark != 30 || s.LogEnd != 30 || s.LogStart != 0 {
		t.Fatalf("status %+v", s)
	}
	next := base.Offset(0)
	for _, b := range e.readAll(tp) {
		if b.BaseOffset() != next || b.LeaderEpoch() != s.LeaderEpoch || b.CheckCRC() != nil {
			t.Fatalf("batch at %d: base %d epoch %d crc %v", next, b.BaseOffset(), b.LeaderEpoch(), b.CheckCRC())
		}
		next = b.NextOffset()
	}
	if next != 30 {
		t.Fatalf("read up to %d", next)
	}
}

func TestUnknownPartitionAndDeletedTopic(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	e.mustPut(tp, batch(t, 1, nowTs, record.BuildHeader{}))
	if res := e.put(base.TopicPartition{Topic: "t", Partition: 1}, batch(t, 1, nowTs, record.BuildHeader{})); !isCode(res.Err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("partition 1: %v", res.Err)
	}
	topic, _ := e.meta.Image().Topic("t")
	e.check(e.meta.DeleteTopic(context.Background(), topic.ID))
	if res := e.put(tp, batch(t, 1, nowTs, record.BuildHeader{})); !isCode(res.Err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("deleted topic: %v", res.Err)
	}
	e.topic("t", nil)
	if got := e.mustPut(tp, batch(t, 1, nowTs, record.BuildHeader{})); got != 0 {
		t.Fatalf("a new topic of the same name starts at %d", got)
	}
}

func TestIdempotentProducer(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	send := func(id base.ProducerID, epoch int16, seq int32, n int) ingest.AppendResult {
		return e.put(tp, batch(t, n, nowTs, record.BuildHeader{ProducerID: id, ProducerEpoch: epoch, BaseSequence: seq}))
	}
	check := func(what string, res ingest.AppendResult, want base.Offset, code *kerr.Error) {
		t.Helper()
		if code != nil && !isCode(res.Err, code) || code == nil && (res.Err != nil || res.BaseOffset != want) {
			t.Fatalf("%s: %+v, want offset %d, error %v", what, res, want, code)
		}
	}
	const id = 7
	check("first of an unknown producer", send(id, 0, 5, 2), 0, nil)
	check("next", send(id, 0, 7, 1), 2, nil)
	check("gap", send(id, 0, 9, 1), 0, kerr.OutOfOrderSequenceNumber)
	dup := send(id, 0, 5, 2)
	check("duplicate", dup, 0, nil)
	if dup.LogAppendTimeMs != nowTs+1 {
		t.Fatalf("a duplicate's log append time is %d, want the stored batch's max timestamp", dup.LogAppendTimeMs)
	}
	check("part of an old batch", send(id, 0, 5, 1), 0, kerr.OutOfOrderSequenceNumber)
	check("old epoch", send(id, -1, 8, 1), 0, kerr.InvalidProducerEpoch)
	check("new epoch, not from 0", send(id, 1, 8, 1), 0, kerr.OutOfOrderSequenceNumber)
	check("new epoch", send(id, 1, 0, 1), 3, nil)
	check("old epoch after the new one", send(id, 0, 8, 1), 0, kerr.InvalidProducerEpoch)
	const wrap = 8
	check("up to the last sequence", send(wrap, 0, math.MaxInt32-1, 2), 4, nil)
	check("wrapped", send(wrap, 0, 0, 1), 6, nil)
	for i := range int32(5) {
		check("window", send(wrap, 0, 1+i, 1), base.Offset(7+i), nil)
	}
	check("older than five batches", send(wrap, 0, 0, 1), 0, kerr.OutOfOrderSequenceNumber)
	check("fifth", send(wrap, 0, 1, 1), 7, nil)
	e.crash()
	check("duplicate after a crash", send(wrap, 0, 1, 1), 7, nil)
	check("next after a crash", send(wrap, 0, 6, 1), 12, nil)
}

func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", map[string]string{"segment.bytes": "1048576"})
	var want []record.Batch
	for round := range 4 {
		for i := range 40 {
			b := batch(t, 200, nowTs+int64(round*1000+i), record.BuildHeader{})
			off := e.mustPut(tp, b)
			record.Batch(b).SetBaseOffset(off)
			want = append(want, b)
		}
		epoch, _ := e.Status(tp)
		if round%2 == 0 {
			e.crash()
		} else {
			e.close()
			e.open()
		}
		after, err := e.Status(tp)
		e.check(err)
		if after.LeaderEpoch <= epoch.LeaderEpoch {
			t.Fatalf("leader epoch %d after a restart, %d before", after.LeaderEpoch, epoch.LeaderEpoch)
		}
		got := e.readAll(tp)
		if len(got) != len(want) {
			t.Fatalf("round %d: %d batches, want %d", round, len(got), len(want))
		}
		for i := range got {
			want[i].SetLeaderEpoch(got[i].LeaderEpoch())
			if string(got[i]) != string(want[i]) {
				t.Fatalf("round %d: batch %d differs", round, i)
			}
		}
	}
	p := e.part(tp)
	s := p.Status()
	if _, end := p.EpochEnd(s.LeaderEpoch - 1); end != s.LogEnd {
		t.Fatalf("epoch %d ended at %d, want %d", s.LeaderEpoch-1, end, s.LogEnd)
	}
	if epoch, end, err := e.EpochEnd(t.Context(), tp, s.LeaderEpoch, s.LeaderEpoch+1); epoch != -1 || end != -1 || err != nil {
		t.Fatalf("an epoch after this leader's ends at %d in epoch %d, %v", end, epoch, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := e.EpochEnd(gone, tp, s.LeaderEpoch, s.LeaderEpoch+1); !errors.Is(err, kerr.UnknownLeaderEpoch) {
		t.Fatalf("an epoch after this leader's, of which nobody can tell whether it still leads: %v", err)
	}
	if _, end, err := e.EpochEnd(t.Context(), tp, s.LeaderEpoch, s.LeaderEpoch); err != nil || end != s.LogEnd {
		t.Fatalf("this leader's epoch ends at %d, %v", end, err)
	}
}

// tier plays the archiver: it commits what is sealed to a manifest root.
func tier(e *env, tp base.TopicPartition) (ranges []ingest.SealedRange) {
	e.t.Helper()
	state, ok := e.meta.Image().Partition(tp)
	if !ok {
		e.t.Fatal("no partition")
	}
	ranges = e.Sealed(math.MaxInt64)
	for _, r := range ranges {
		var n int64
		next := r.Base
		e.check(e.ReadSealed(context.Background(), r.Log, r.Base, r.End, func(b record.Batch) error {
			if b.BaseOffset() != next {
				return fmt.Errorf("batch at %d, want %d", b.BaseOffset(), next)
			}
			next, n = b.NextOffset(), n+int64(len(b))
			return nil
		}))
		if next != r.End || n != r.Bytes {
			e.t.Fatalf("range %+v yielded %d bytes up to %d", r, n, next)
		}
		root, _, err := e.meta.Root(context.Background(), r.Log)
		e.check(err)
		root.Log, root.Epoch, root.Seq, root.TieredEnd, root.Object = r.Log, state.LeaderEpoch, root.Seq+1, r.End, "x"
		e.check(e.meta.SwapRoots(context.Background(), []*metadata.Root{&root})[0])
		e.Tiered(r.Log, r.End)
	}
	return ranges
}

func TestSealTierTrim(t *testing.T) {
	e := newEnv(t)
	e.opts.HotBytes, e.opts.TailBytes = 1, 1 // nothing that is tiered stays
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"segment.bytes": "1048576", "varve.tiering.max.lag.ms": "3600000"})
	var puts int
	for puts = 0; puts < 300; puts++ {
		e.mustPut(tp, batch(t, 500, nowTs+int64(puts), record.BuildHeader{}))
	}
	ranges := tier(e, tp)
	if len(ranges) < 2 {
		t.Fatalf("%d sealed ranges", len(ranges))
	}
	if again := e.Sealed(math.MaxInt64); len(again) != 0 {
		t.Fatalf("tiered ranges are listed again: %v", again)
	}
	end := ranges[len(ranges)-1].End
	e.until("trimmed", func() bool { s, _ := e.Status(tp); return s.HotStart == end })
	p := e.part(tp)
	if _, err := p.ReadHot(0, end, 1<<20); !isCode(err, kerr.OffsetOutOfRange) {
		t.Fatalf("read of a trimmed range: %v", err)
	}
	s := p.Status()
	if s.TieredEnd != end || s.LogStart != 0 || s.HighWatermark != base.Offset(puts*500) {
		t.Fatalf("status %+v", s)
	}
	e.crash()
	after, err := e.Status(tp)
	e.check(err)
	if after.TieredEnd != end || after.HighWatermark != s.HighWatermark || after.HotStart > end {
		t.Fatalf("after a crash %+v, before %+v", after, s)
	}
	for _, b := range e.readAll(tp) {
		e.check(b.CheckCRC())
	}
}

// TestRecoveryFollowsTheManifest loses the rows of a range that age sealed while its manifest was committed.
func TestRecoveryFollowsTheManifest(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100", "local.retention.bytes": "1073741824"})
	for i := range 20 {
		e.mustPut(tp, batch(t, 100, nowTs+int64(i), record.BuildHeader{}))
	}
	var end base.Offset
	e.until("sealed and tiered", func() bool {
		for _, r := range tier(e, tp) {
			end = r.End
		}
		return end == 2000
	})
	e.crash() // no sync came after the 's' rows
	e.mustPut(tp, batch(t, 100, nowTs+100, record.BuildHeader{}))
	s, err := e.Status(tp)
	e.check(err)
	if s.TieredEnd != 2000 || s.HighWatermark != 2100 {
		t.Fatalf("status %+v", s)
	}
	if s.UntieredBytes <= 0 || s.UntieredBytes > s.HotBytes {
		t.Fatalf("untiered bytes %d of %d", s.UntieredBytes, s.HotBytes)
	}
	e.until("the rest sealed", func() bool { return len(tier(e, tp)) > 0 })
}

func TestPressureSealsTheLargest(t *testing.T) {
	e := newEnv(t)
	e.opts.UntieredBytes = 256 << 10
	e.close()
	e.open()
	quiet, busy := e.topic("quiet", nil), e.topic("busy", nil)
	e.mustPut(quiet, batch(t, 1, nowTs, record.BuildHeader{}))
	for i := range 100 {
		e.mustPut(busy, batch(t, 500, nowTs+int64(i), record.BuildHeader{}))
	}
	var ranges []ingest.SealedRange
	e.until("sealed", func() bool { ranges = e.Sealed(math.MaxInt64); return len(ranges) > 0 })
	for _, r := range ranges {
		if r.TP != busy {
			t.Fatalf("pressure sealed %s", r.TP)
		}
	}
}

func TestFindTimeEqualsAScan(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	var all []ingest.Found
	for i := range 120 {
		ts := nowTs + int64((i*7919)%400)*10 // not in order
		codec := []record.Codec{record.CodecNone, record.CodecZstd}[i%2]
		off := e.mustPut(tp, batch(t, 100, ts, record.BuildHeader{Codec: codec}))
		for k := range 100 {
			all = append(all, ingest.Found{Offset: off + base.Offset(k), Timestamp: ts + int64(k)})
		}
	}
	p := e.part(tp)
	v, err := p.View()
	e.check(err)
	for _, from := range []base.Offset{0, 1, 5050, 11_999} {
		for ts := nowTs - 5; ts < nowTs+4200; ts += 37 {
			var want ingest.Found
			wantOK := false
			for _, f := range all {
				if f.Offset >= from && f.Timestamp >= ts {
					want, wantOK = f, true
					break
				}
			}
			got, ok, err := p.FindTime(ts, from, v.HighWatermark)
			e.check(err)
			if ok != wantOK || ok && got != want {
				t.Fatalf("first at or after %d with ts >= %d: %v %v, want %v %v", from, ts, got, ok, want, wantOK)
			}
		}
	}
	max, ok, err := p.MaxTimestamp(0, v.HighWatermark)
	e.check(err)
	for _, f := range all {
		if !ok || f.Timestamp > max.Timestamp || f.Timestamp == max.Timestamp && f.Offset < max.Offset {
			t.Fatalf("max timestamp %v, but there is %v", max, f)
		}
	}
}

// deleteRecords is a whole request: it returns the low watermark.
func deleteRecords(g *ingest.Ingest, tp base.TopicPartition, to base.Offset) (base.Offset, error) {
	goal, err := g.DeleteRecords(tp, to)
	if err != nil {
		return base.NoOffset, err
	}
	return g.AwaitLowWatermark(context.Background(), tp, goal)
}

func TestDeleteRecords(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	e.mustPut(tp, batch(t, 100, nowTs, record.BuildHeader{}))
	del := func(to, want base.Offset, code *kerr.Error) {
		t.Helper()
		got, err := deleteRecords(e.Ingest, tp, to)
		if code != nil && !isCode(err, code) || code == nil && (err != nil || got != want) {
			t.Fatalf("delete below %d: %d, %v, want %d, %v", to, got, err, want, code)
		}
	}
	del(40, 40, nil)
	del(10, 40, nil)
	del(101, 0, kerr.OffsetOutOfRange)
	del(-2, 0, kerr.OffsetOutOfRange)
	e.crash()
	if s, _ := e.Status(tp); s.LogStart != 40 {
		t.Fatalf("log start %d after a crash", s.LogStart)
	}
	del(-1, 100, nil)
	compacted := e.topic("c", map[string]string{"cleanup.policy": "compact"})
	if _, err := e.DeleteRecords(compacted, 0); !isCode(err, kerr.PolicyViolation) {
		t.Fatalf("compacted topic: %v", err)
	}
}

// A request opens a new topic's partition as soon as an image shows it. The image before, in which brokers came or went, may
// be followed only then.
func TestOpenedBeforeAnOlderImageIsFollowed(t *testing.T) {
	e := newEnv(t)
	older := e.meta.Image()
	tp := e.topic("t", nil)
	p := e.part(tp)
	ingest.OpenedByRequest(e.Ingest, p)
	e.mustPut(tp, batch(t, 10, nowTs, record.BuildHeader{}))
	ingest.FollowAll(e.Ingest, older)
	ingest.DropGone(e.Ingest)
	e.mustPut(tp, batch(t, 1, nowTs, record.BuildHeader{}))
	if e.part(tp) != p || len(e.readAll(tp)) != 2 {
		t.Errorf("the partition was opened anew, or has lost acknowledged records: %d batches", len(e.readAll(tp)))
	}
}

// A process whose id another one has registered meanwhile (it stood still, say) leads nothing of what the image shows of that one.
func TestAnotherProcessHasTheID(t *testing.T) {
	e := &env{t: t, fs: vfs.NewCrashableMem(), replicates: true}
	e.start()
	tp := e.topic("t", nil)
	e.mustPut(tp, batch(t, 1, nowTs, record.BuildHeader{}))
	before := e.part(tp).Status().LeaderEpoch
	other, err := metadata.Open(t.Context(), metadata.Options{KV: e.kv, BrokerID: e.id})
	e.check(err)
	defer func() { e.check(other.Close()) }()
	_, err = other.RegisterBroker(t.Context(), metadata.Broker{ID: e.id, Host: "localhost", Port: 9092})
	e.check(err)
	e.until("the image shows the other's epoch", func() bool {
		p, ok := e.meta.Image().Partition(tp)
		return ok && p.LeaderEpoch > before
	})
	e.until("the partition is not led here any more", func() bool {
		return isCode(e.put(tp, batch(t, 1, nowTs, record.BuildHeader{})).Err, kerr.NotLeaderForPartition)
	})
}

// Requests that name a topic by its id do not reach another one that has got its name.
func TestTopicIDIsAnotherTopics(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	was, _ := e.meta.Image().Topic("t")
	e.check(e.meta.DeleteTopic(t.Context(), was.ID))
	e.topic("t", nil)
	for _, id := range []base.TopicID{was.ID, {1}} {
		r := e.Append(t.Context(), -1, 30000, []ingest.AppendRequest{{TP: tp, TopicID: id, Records: batch(t, 1, nowTs, record.BuildHeader{})}})
		<-r.Done()
		if err := r.Results()[0].Err; !isCode(err, kerr.UnknownTopicID) {
			t.Errorf("append by id %s: %v", id, err)
		}
		if _, err := e.Served(tp, id, true); !isCode(err, kerr.UnknownTopicID) {
			t.Errorf("fetch by id %s: %v", id, err)
		}
	}
	now, _ := e.meta.Image().Topic("t")
	_, err := e.Served(tp, now.ID, false)
	e.check(err)
}

func TestWaiterWakesOnCommitAndOnLoss(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	w := ingest.NewWaiter()
	p := e.part(tp)
	p.Watch(w)
	defer p.Unwatch(w)
	go e.mustPut(tp, batch(t, 1, nowTs, record.BuildHeader{}))
	<-w.C
	topic, _ := e.meta.Image().Topic("t")
	e.check(e.meta.DeleteTopic(context.Background(), topic.ID))
	<-w.C
}

func TestConcurrentProducersKeepTheirOrder(t *testing.T) {
	e := newEnv(t)
	tps := make([]base.TopicPartition, 4)
	for i := range tps {
		tps[i] = e.topic(fmt.Sprint("t", i), map[string]string{"segment.bytes": "1048576"})
	}
	const producers, rounds = 8, 40
	var wg sync.WaitGroup
	for id := range producers {
		wg.Go(func() {
			var receipts []*ingest.Receipt
			for i := range rounds {
				var reqs []ingest.AppendRequest
				for _, tp := range tps {
					reqs = append(reqs, ingest.AppendRequest{TP: tp, Records: batch(t, 10, nowTs, record.BuildHeader{ProducerID: base.ProducerID(id + 1), BaseSequence: int32(i * 10)})})
				}
				receipts = append(receipts, e.Append(context.Background(), -1, 60000, reqs))
			}
			for _, r := range receipts {
				<-r.Done()
				for _, res := range r.Results() {
					if res.Err != nil {
						t.Error(res.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, tp := range tps {
		seq, next := map[base.ProducerID]int32{}, base.Offset(0)
		for _, b := range e.readAll(tp) {
			if b.BaseOffset() != next || b.BaseSequence() != seq[b.ProducerID()] {
				t.Fatalf("%s: batch at %d (want %d) of producer %d has sequence %d, want %d", tp, b.BaseOffset(), next, b.ProducerID(), b.BaseSequence(), seq[b.ProducerID()])
			}
			next, seq[b.ProducerID()] = b.NextOffset(), b.BaseSequence()+10
		}
		if next != producers*rounds*10 {
			t.Fatalf("%s ends at %d", tp, next)
		}
	}
}

func TestRetentionWithoutTiering(t *testing.T) {
	e := newEnv(t)
	e.opts.RetentionEvery = 10 * time.Millisecond
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"remote.storage.enable": "false", "retention.bytes": "1500000", "segment.bytes": "1048576", "retention.ms": "-1"})
	for i := range 300 {
		e.mustPut(tp, batch(t, 500, nowTs+int64(i), record.BuildHeader{}))
	}
	e.until("old ranges deleted", func() bool {
		s, _ := e.Status(tp)
		return s.LogStart > 0 && s.HotStart == s.LogStart && s.HotBytes < 3<<20
	})
}

// A coordinator's batch of another epoch rests on a state that lacks what was committed since: it is refused, and nothing of it is
// in the log.
func TestAppendBatchOfAnotherEpoch(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	epoch := e.part(tp).Status().LeaderEpoch
	for _, under := range []base.LeaderEpoch{epoch + 1, epoch - 1, epoch, base.NoLeaderEpoch} {
		b := record.Batch(batch(t, 1, nowTs, record.BuildHeader{}))
		b.SetLeaderEpoch(under)
		done := make(chan error, 1)
		end := e.part(tp).Status().LogEnd
		e.AppendBatch(tp, b, func(_ base.Offset, err error) { done <- err })
		err := <-done
		refused := under != epoch && under >= 0
		if refused != isCode(err, kerr.NotLeaderForPartition) || !refused && err != nil || refused && e.part(tp).Status().LogEnd != end {
			t.Errorf("a batch of epoch %d, led in %d: %v", under, epoch, err)
		}
	}
}
