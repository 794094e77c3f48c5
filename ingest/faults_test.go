package ingest_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// gate is something that a test can hold up. It is open at first.
type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil while open
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	c := g.closed
	g.mu.Unlock()
	if c != nil {
		<-c
	}
}

// slowStore is a hot store whose writes can be held up, as a full disk does.
type slowStore struct {
	*hot.Store
	writes   gate
	before   atomic.Pointer[func()] // runs before a write that nobody waits for
	full     atomic.Bool
	reclaims atomic.Int64
}

func (s *slowStore) Apply(w *hot.Write) (*hot.Commit, error) {
	s.writes.pass()
	return s.Store.Apply(w)
}

func (s *slowStore) ApplyNoSync(w *hot.Write) error {
	if fn := s.before.Swap(nil); fn != nil {
		(*fn)()
	}
	s.writes.pass()
	return s.Store.ApplyNoSync(w)
}

func (s *slowStore) Drop(logs []base.LogID) error {
	s.writes.pass()
	return s.Store.Drop(logs)
}

func (s *slowStore) Reclaim() error {
	s.reclaims.Add(1)
	return s.Store.Reclaim()
}

func (s *slowStore) Full() bool { return s.full.Load() || s.Store.Full() }

// newSlowEnv is newEnv with a disk that can be held up: its writes at the store, its syncs at the file system.
func newSlowEnv(t *testing.T, opts ingest.Options) (e *env, store *slowStore, syncs *gate) {
	syncs, store = &gate{}, &slowStore{}
	e = &env{t: t, fs: vfs.NewCrashableMem(), opts: opts}
	e.disk = func(fs vfs.FS) vfs.FS {
		return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo {
				syncs.pass()
			}
			return nil
		}))
	}
	e.wrap = func(s *hot.Store) ingest.Store {
		store.Store = s
		return store
	}
	e.start()
	t.Cleanup(func() { store.writes.open(); syncs.open() })
	return e, store, syncs
}

var quick = ingest.Options{TickEvery: time.Millisecond, CheckpointEvery: time.Millisecond, RetentionEvery: 5 * time.Millisecond}

func (e *env) start1(tp base.TopicPartition, timeoutMs int32, records []byte) *ingest.Receipt {
	return e.Append(context.Background(), -1, timeoutMs, []ingest.AppendRequest{{TP: tp, Records: records, ZstdAllowed: true}})
}

func plain(t *testing.T, n int) []byte {
	return batch(t, n, time.Now().UnixMilli(), record.BuildHeader{})
}

// within fails where fn does not return in time.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// TestTopicDeletedWhileTheBrokerWasDown recovers a log whose topic is gone: it is dropped, and housekeeping lives.
func TestTopicDeletedWhileTheBrokerWasDown(t *testing.T) {
	e := newEnv(t)
	e.opts = quick
	tp := e.topic("t", nil)
	e.mustPut(tp, plain(t, 10))
	e.check(e.Stop())
	e.check(e.store.Close())
	topic, _ := e.meta.Image().Topic("t")
	e.check(e.meta.DeleteTopic(context.Background(), topic.ID))
	e.check(e.meta.Close())
	e.open()
	e.until("dropped", func() bool { logs, err := e.store.Logs(); return err == nil && len(logs) == 0 })
	other := e.topic("u", map[string]string{"varve.tiering.max.lag.ms": "100"})
	e.mustPut(other, plain(t, 1))
	e.until("housekeeping seals", func() bool { return len(e.Sealed(math.MaxInt64)) > 0 })
	if logs, err := e.store.Logs(); err != nil || len(logs) != 1 {
		t.Fatalf("logs %v, %v", logs, err)
	}
}

// TestAnsweredLogStartOutlivesAnOlderRow deletes records between the making of a checkpoint's row and its writing.
func TestAnsweredLogStartOutlivesAnOlderRow(t *testing.T) {
	e, store, _ := newSlowEnv(t, quick)
	tp := e.topic("t", nil)
	e.mustPut(tp, plain(t, 100))
	answered, asked := make(chan base.Offset, 1), make(chan struct{})
	between := func() {
		close(asked)
		go func() {
			to, err := deleteRecords(e.Ingest, tp, 60)
			if err != nil {
				t.Error(err)
			}
			answered <- to
		}()
		select { // where the row's order is not kept, this is long enough to overtake it
		case to := <-answered:
			answered <- to
		case <-time.After(50 * time.Millisecond):
		}
	}
	store.before.Store(&between)
	e.mustPut(tp, plain(t, 1)) // something to checkpoint
	<-asked
	to := <-answered
	e.mustPut(e.topic("sync", nil), plain(t, 1)) // what was written before is durable with it
	e.crash()
	if s, _ := e.Status(tp); s.LogStart != to {
		t.Fatalf("log start %d after a crash, DeleteRecords answered %d", s.LogStart, to)
	}
}

// TestFullDiskHoldsUpNoReader: opening and deleting partitions while no write gets through.
func TestFullDiskHoldsUpNoReader(t *testing.T) {
	e, store, _ := newSlowEnv(t, quick)
	tp, gone := e.topic("t", nil), e.topic("gone", nil)
	e.mustPut(tp, plain(t, 10))
	e.mustPut(gone, plain(t, 10))
	store.writes.shut()
	defer store.writes.open()
	topic, _ := e.meta.Image().Topic("gone")
	e.check(e.meta.DeleteTopic(context.Background(), topic.ID))
	fresh := e.topic("new", nil)
	within(t, "opening a partition", func() { e.part(fresh) })
	within(t, "a read", func() { e.readAll(tp) })
	_, err := e.meta.RegisterBroker(context.Background(), metadata.Broker{ID: 1, Host: "h", Port: 1})
	e.check(err)
	want, _ := e.meta.Image().Partition(tp)
	e.until("new leader epoch", func() bool { s, _ := e.Status(tp); return s.LeaderEpoch == want.LeaderEpoch })
}

// TestAppendsTimeOutWhileTheDiskHangs: housekeeping waits for the disk, expiry does not.
func TestAppendsTimeOutWhileTheDiskHangs(t *testing.T) {
	e, store, syncs := newSlowEnv(t, quick)
	tp := e.topic("t", nil)
	e.mustPut(tp, plain(t, 10))
	syncs.shut()
	a := e.start1(tp, 300, plain(t, 1))
	store.writes.shut()
	var b *ingest.Receipt
	blocked := make(chan struct{})
	go func() { b = e.start1(tp, 60000, plain(t, 1)); close(blocked) }()
	within(t, "the first append", func() { <-a.Done() })
	if err := a.Results()[0].Err; !isCode(err, kerr.RequestTimedOut) {
		t.Fatalf("append while the disk hangs: %v", err)
	}
	within(t, "a read", func() { e.readAll(tp) })
	store.writes.open()
	syncs.open()
	<-blocked
	<-b.Done()
	if res := b.Results()[0]; res.Err != nil || res.BaseOffset != 11 {
		t.Fatalf("second append %+v", res)
	}
}

// TestPendingAppendsAreBounded: clients that give up do not make room.
func TestPendingAppendsAreBounded(t *testing.T) {
	opts := quick
	opts.PendingBytes = 24 << 10
	e, store, syncs := newSlowEnv(t, opts)
	tp := e.topic("t", nil)
	e.mustPut(tp, plain(t, 1))
	syncs.shut()
	var taken []*ingest.Receipt
	refused := false
	for range 100 {
		raw := plain(t, 500) // about 11 KB
		r := e.start1(tp, 20, raw)
		within(t, "an append that gives up", func() { <-r.Done() })
		if !isCode(r.Results()[0].Err, kerr.RequestTimedOut) {
			t.Fatal(r.Results()[0].Err)
		}
		taken = append(taken, r)
		if s, _ := e.Status(tp); len(taken) > 4 && s.LogEnd < base.Offset(1+500*len(taken)) {
			refused = true // it was never ordered
			break
		}
	}
	if !refused {
		t.Fatal("100 appends of 11 KB wait within 24 KB")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := e.Append(ctx, 1, 0, []ingest.AppendRequest{{TP: tp, Records: plain(t, 500), ZstdAllowed: true}})
	within(t, "an append whose caller is gone", func() { <-r.Done() })
	store.full.Store(true)
	if res := e.put(tp, plain(t, 500)); !isCode(res.Err, kerr.KafkaStorageError) {
		t.Fatalf("full disk: %v", res.Err)
	}
	store.full.Store(false)
	syncs.open()
	e.mustPut(tp, plain(t, 500))
}

// TestStopGivesUpOnAFullDisk: a broker must not need kill -9.
func TestStopGivesUpOnAFullDisk(t *testing.T) {
	e, store, syncs := newSlowEnv(t, quick)
	tp := e.topic("t", nil)
	e.mustPut(tp, plain(t, 1))
	syncs.shut()
	store.writes.shut()
	go e.start1(tp, 60000, plain(t, 1))
	store.full.Store(true)
	within(t, "Stop", func() {
		if err := e.Stop(); !isCode(err, kerr.KafkaStorageError) {
			t.Errorf("stop: %v", err)
		}
	})
	store.full.Store(false)
	store.writes.open()
	syncs.open()
	e.stopped = true
}

// TestFullDiskEmptiesItself: what the bucket has goes, and Pebble is told to give the space back.
func TestFullDiskEmptiesItself(t *testing.T) {
	e, store, _ := newSlowEnv(t, quick)
	tp := e.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"})
	e.mustPut(tp, plain(t, 100))
	e.until("tiered", func() bool { tier(e, tp); s, _ := e.Status(tp); return s.TieredEnd == 100 })
	store.full.Store(true)
	if res := e.put(tp, plain(t, 1)); !isCode(res.Err, kerr.KafkaStorageError) {
		t.Fatalf("full disk: %v", res.Err)
	}
	e.until("trimmed and reclaimed", func() bool { s, _ := e.Status(tp); return s.HotStart == 100 && store.reclaims.Load() > 0 })
	store.full.Store(false)
	e.mustPut(tp, plain(t, 1))
}

// TestRecordsWithoutTimestampsAge from when their range was closed, as Kafka's do from their file's time.
func TestRecordsWithoutTimestampsAge(t *testing.T) {
	e := newEnv(t)
	e.opts = quick
	e.close()
	e.open()
	cfg := map[string]string{"remote.storage.enable": "false", "retention.ms": "3600000"}
	none, old := e.topic("none", cfg), e.topic("old", cfg)
	rs := []record.Record{{Timestamp: record.NoTimestamp, Value: []byte("v")}}
	b, err := record.Build(record.BuildHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}, rs)
	e.check(err)
	e.mustPut(none, b)
	for range 3 { // each is looked at after the other
		before, _ := e.Status(old)
		e.mustPut(old, batch(t, 1, nowTs, record.BuildHeader{}))
		e.until("old records deleted", func() bool { s, _ := e.Status(old); return s.LogStart > before.LogStart })
	}
	if s, _ := e.Status(none); s.LogStart != 0 {
		t.Fatalf("log start %d: records without a timestamp were deleted at once", s.LogStart)
	}
}

// TestTieringIsTurnedOn of a topic that has closed ranges and an open one, and gets no more appends.
func TestTieringIsTurnedOn(t *testing.T) {
	opts := quick
	opts.MaxSealBytes = 8 << 10
	e := newEnv(t)
	e.opts = opts
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"remote.storage.enable": "false", "varve.tiering.max.lag.ms": "100"})
	for range 5 {
		e.mustPut(tp, plain(t, 200))
	}
	e.close() // after a restart nothing but the configuration makes it work again
	e.open()
	on := "true"
	e.check(e.meta.IncrementalAlterConfigs(context.Background(), metadata.Resource{Type: metadata.ResourceTopic, Name: "t"},
		[]metadata.ConfigOp{{Name: "remote.storage.enable", Value: &on}}, false))
	e.until("all tiered", func() bool { tier(e, tp); s, _ := e.Status(tp); return s.TieredEnd == 1000 })
}

// TestRolledRangeIsSignalled: the archiver hears of a range that an append closed.
func TestRolledRangeIsSignalled(t *testing.T) {
	opts := quick
	opts.MaxSealBytes = 8 << 10
	e := newEnv(t)
	e.opts = opts
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"varve.tiering.max.lag.ms": "3600000"})
	for range 5 {
		e.mustPut(tp, plain(t, 200))
	}
	within(t, "the signal", func() {
		for len(e.Sealed(math.MaxInt64)) == 0 {
			<-e.SealedC()
		}
	})
	select {
	case <-e.SealedC():
	case <-time.After(5 * time.Second):
		t.Fatal("no signal")
	}
}

// TestLogBehindItsManifest goes on from the bucket after the disk lost its tail, and after every later restart (I14).
func TestLogBehindItsManifest(t *testing.T) {
	e := newEnv(t)
	tp := e.topic("t", nil)
	e.mustPut(tp, plain(t, 100))
	e.close()
	e.open()
	state, _ := e.meta.Image().Partition(tp)
	root := metadata.Root{Log: state.Log, Epoch: state.LeaderEpoch, Seq: 1, TieredEnd: 1000, Object: "x"}
	e.check(e.meta.SwapRoots(context.Background(), []*metadata.Root{&root})[0])
	for restart := range 3 {
		if restart == 1 {
			e.crash()
		} else {
			e.close()
			e.open()
		}
		s, err := e.Status(tp)
		e.check(err)
		if s.HighWatermark != 1000 || s.HotStart != 1000 || s.LogStart != 0 || s.HotBytes != 0 {
			t.Fatalf("restart %d: %+v", restart, s)
		}
	}
	if off := e.mustPut(tp, plain(t, 5)); off != 1000 {
		t.Fatalf("appended at %d", off)
	}
	e.crash()
	if s, err := e.Status(tp); err != nil || s.HighWatermark != 1005 || s.HotStart != 1000 || s.HotBytes == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if bs := e.readAll(tp); len(bs) != 1 || bs[0].BaseOffset() != 1000 {
		t.Fatalf("%d batches", len(bs))
	}
}

// TestTailKeepsNoFrameOfRefusedRecords: the tail must not hold a request of which it counts a small part.
func TestTailKeepsNoFrameOfRefusedRecords(t *testing.T) {
	e := newEnv(t)
	tp, other := e.topic("t", nil), e.topic("u", map[string]string{"max.message.bytes": "1000"})
	small, big := plain(t, 1), plain(t, 5000)
	r := e.Append(context.Background(), -1, 30000, []ingest.AppendRequest{{TP: tp, Records: small}, {TP: other, Records: big}})
	<-r.Done()
	if res := r.Results(); res[0].Err != nil || !isCode(res[1].Err, kerr.MessageTooLarge) {
		t.Fatalf("%+v", res)
	}
	if got := e.readAll(tp)[0]; &got[0] == &small[0] {
		t.Fatal("the tail refers to the request's frame")
	}
}

// TestProducersAreBounded: the longest idle are forgotten, the busy ones are not.
func TestProducersAreBounded(t *testing.T) {
	e := newEnv(t)
	e.opts.ProducersPerPartition = 100
	e.close()
	e.open()
	tp := e.topic("t", nil)
	send := func(id, seq int) ingest.AppendResult {
		return e.put(tp, batch(t, 1, nowTs, record.BuildHeader{ProducerID: base.ProducerID(id), BaseSequence: int32(seq)}))
	}
	for i := range 300 {
		e.check(send(1, i).Err)
		e.check(send(1000+i, 7).Err)
	}
	if res := send(1, 299); res.Err != nil || res.BaseOffset != 598 {
		t.Fatalf("a busy producer's duplicate: %+v", res)
	}
	if res := send(1299, 7); res.Err != nil || res.BaseOffset != 599 {
		t.Fatalf("the newest producer's duplicate: %+v", res)
	}
	if res := send(1000, 7); res.Err != nil || res.BaseOffset != 600 {
		t.Fatalf("a forgotten producer: %+v", res)
	}
	if n := e.part(tp).Producers(); n > 100 {
		t.Fatalf("%d producers are remembered", n)
	}
}

// steppingClock is the machine's clock, set back by the test.
type steppingClock struct {
	clock.Real
	back atomic.Int64
}

func (c *steppingClock) Now() time.Time { return c.Real.Now().Add(-time.Duration(c.back.Load())) }

// TestClockStepsBack: ranges are listed in offset order whatever the clock said when they were closed. The archiver takes a
// range below one that it has seen for tiered, and its hot copy would go.
func TestClockStepsBack(t *testing.T) {
	c := &steppingClock{}
	e := newEnv(t)
	e.opts = quick
	e.opts.MaxSealBytes, e.opts.Clock = 8<<10, c
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"varve.tiering.max.lag.ms": "3600000"})
	for i := range 6 {
		c.back.Store(int64(i) * int64(time.Minute))
		e.mustPut(tp, plain(t, 200))
	}
	next := base.Offset(0)
	for _, r := range e.Sealed(math.MaxInt64) {
		if r.Base != next {
			t.Fatalf("range [%d, %d) is listed where %d is next", r.Base, r.End, next)
		}
		next = r.End
	}
	if next == 0 {
		t.Fatal("nothing is sealed")
	}
}

// TestOpenRangeOutlivesAClockStep sets the clock back by hours behind an append: varve.tiering.max.lag.ms holds all the same, from there.
func TestOpenRangeOutlivesAClockStep(t *testing.T) {
	c := &steppingClock{}
	e := newEnv(t)
	e.opts = quick
	e.opts.Clock = c
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"varve.tiering.max.lag.ms": "500"})
	e.mustPut(tp, plain(t, 200))
	c.back.Store(int64(6 * time.Hour))
	e.until("the range is sealed", func() bool { return len(e.Sealed(math.MaxInt64)) > 0 })
}

// TestRetentionWaitsForTheColdPart stops the copying of a topic whose older part is tiered: an expired hot range must not move the
// log start offset past tiered ranges that are not expired. With remote.log.delete.on.disable they go (KIP-950).
func TestRetentionWaitsForTheColdPart(t *testing.T) {
	e := newEnv(t)
	e.opts.HotBytes, e.opts.TailBytes, e.opts.RetentionEvery = 1, 1, 10*time.Millisecond
	e.close()
	e.open()
	tp := e.topic("t", map[string]string{"segment.bytes": "1048576", "retention.ms": "-1", "varve.tiering.max.lag.ms": "3600000"})
	for i := range 120 {
		e.mustPut(tp, batch(t, 500, nowTs+int64(i), record.BuildHeader{}))
	}
	tier(e, tp)
	e.until("the older part is cold", func() bool { s, _ := e.Status(tp); return s.HotStart > 0 })
	for i := range 200 {
		e.mustPut(tp, batch(t, 500, nowTs+int64(i), record.BuildHeader{}))
	}
	set := func(name, value string) {
		t.Helper()
		r := metadata.Resource{Type: metadata.ResourceTopic, Name: "t"}
		e.check(e.meta.IncrementalAlterConfigs(context.Background(), r, []metadata.ConfigOp{{Name: name, Value: &value}}, false))
	}
	set("remote.log.copy.disable", "true")
	set("retention.bytes", "1")
	other := e.topic("other", map[string]string{"remote.storage.enable": "false", "retention.bytes": "1", "segment.bytes": "1048576"})
	for i := range 120 {
		e.mustPut(other, batch(t, 500, nowTs+int64(i), record.BuildHeader{}))
	}
	e.until("retention ran", func() bool { s, _ := e.Status(other); return s.LogStart > 0 })
	if s, _ := e.Status(tp); s.LogStart != 0 {
		t.Fatalf("the log start moved to %d past the cold part, which ends at %d", s.LogStart, s.TieredEnd)
	}
	cold, _ := e.Status(tp)
	set("remote.log.copy.disable", "false")
	set("remote.log.delete.on.disable", "true")
	set("remote.storage.enable", "false")
	e.until("the tiered part is deleted", func() bool { s, _ := e.Status(tp); return s.LogStart >= cold.HotStart })
}
