package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/ingest/hot"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/crashfs"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

// sent is a batch that the workload handed to ingest: its bytes without the leader epoch, and where it must lie.
type sent struct {
	base, next base.Offset
	bytes      []byte
	producer   base.ProducerID // 0: not idempotent
	seq        int32
}

// book is what the workload knows of one partition.
type book struct {
	tp      base.TopicPartition
	log     base.LogID
	batches []sent // in offset order; what is appended but not acknowledged too
	acked   base.Offset
	// starts: DeleteRecords that was answered, and that was asked for.
	start, startAsked base.Offset
	seqs              map[base.ProducerID]int32 // the next sequence
	root              metadata.Root
}

func (b *book) end() base.Offset {
	if len(b.batches) == 0 {
		return 0
	}
	return b.batches[len(b.batches)-1].next
}

// crashRun is a seeded workload over a disk whose writes may take a copy of what a power cut would leave.
type crashRun struct {
	t    *testing.T
	rng  *rand.Rand // of the workload
	cuts *rand.Rand // of the copies; guarded by mu
	meta *metadata.Store
	mem  *vfs.MemFS
	ops  atomic.Int64
	mu   sync.Mutex // guards the books' acked, starts and roots, and points: a copy is of one moment
	// books are of the partitions 0..n-1 of the topic.
	books  []*book
	points []crashMoment
	gap    atomic.Int64 // operations until the next copy
}

// crashMoment is a disk after a power cut, with what was promised then.
type crashMoment struct {
	op       int64
	unsynced int
	fs       *vfs.MemFS
	books    []*book
}

func (c *crashRun) copyBooks() []*book {
	out := make([]*book, len(c.books))
	for i, b := range c.books {
		k := *b
		k.batches = slices.Clip(b.batches) // an append to either copy leaves the other alone
		out[i] = &k
	}
	return out
}

// step is called before every writing operation of the disk.
func (c *crashRun) step() {
	n := c.ops.Add(1)
	if c.gap.Add(-1) != 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, unsynced := range []int{0, 40, 100} {
		before := c.copyBooks()
		fs := c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: c.cuts})
		c.points = append(c.points, crashMoment{n, unsynced, fs, before})
	}
	c.gap.Store(1 + c.cuts.Int64N(40))
}

func (c *crashRun) disk(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFilePreallocate && op.Kind != errorfs.OpLock {
			c.step()
		}
		return nil
	}))
}

// openCrash starts an ingest that does its housekeeping all the time.
func openCrash(t *testing.T, fs vfs.FS, meta *metadata.Store, books []*book) (*hot.Store, *ingest.Ingest) {
	t.Helper()
	store, err := hot.Open(hot.Options{
		Dir: "hot", FS: fs, MemTableBytes: 256 << 10, OnFatal: func(err error) { t.Error(err) },
		FreeSpace: func() (uint64, error) { return 1 << 40, nil }, MaxTableFailures: 1 << 30,
	})
	if err != nil {
		t.Fatalf("open hot store: %v", err)
	}
	roots := map[base.LogID]metadata.Root{}
	for _, b := range books {
		if b.root.TieredEnd > 0 {
			roots[b.log] = b.root
		}
	}
	in, err := ingest.New(ingest.Options{
		Store: store, Meta: meta, Broker: 1, Roots: roots, TailBytes: 8 << 10, UntieredBytes: 24 << 10, HotBytes: 8 << 10,
		MaxSealBytes: 6 << 10, TickEvery: time.Millisecond, CheckpointEvery: 3 * time.Millisecond, RetentionEvery: time.Hour,
	})
	if err != nil {
		t.Fatalf("recover: %v", err)
	}
	in.Start()
	return store, in
}

func closeCrash(t *testing.T, store *hot.Store, in *ingest.Ingest) {
	t.Helper()
	if err := errors.Join(in.Stop(), store.Close()); err != nil {
		t.Fatal(err)
	}
}

// flight is an append that is not answered yet.
type flight struct {
	receipt *ingest.Receipt
	books   []*book
	want    []base.Offset
	ends    []base.Offset
}

// appendSome sends one request to some partitions and notes where its batches must go.
func (c *crashRun) appendSome(in *ingest.Ingest) *flight {
	f := &flight{}
	var reqs []ingest.AppendRequest
	for _, b := range c.books {
		if c.rng.IntN(3) == 0 {
			continue
		}
		if len(b.batches) > 0 && c.rng.IntN(8) == 0 { // repeat the last batch
			s := b.batches[len(b.batches)-1]
			if s.producer == 0 {
				continue
			}
			again := bytes.Clone(s.bytes)
			record.Batch(again).SetBaseOffset(0)
			reqs = append(reqs, ingest.AppendRequest{TP: b.tp, Records: again, ZstdAllowed: true})
			f.books, f.want, f.ends = append(f.books, b), append(f.want, s.base), append(f.ends, s.next)
			continue
		}
		n := 1 + c.rng.IntN(60)
		h := record.BuildHeader{ProducerID: base.ProducerID(c.rng.IntN(4))}
		if h.ProducerID > 0 {
			h.BaseSequence = b.seqs[h.ProducerID]
			b.seqs[h.ProducerID] += int32(n)
		}
		seq := h.BaseSequence
		raw := batch(c.t, n, nowTs+int64(c.rng.IntN(100000)), h)
		at := b.end()
		kept := bytes.Clone(raw)
		record.Batch(kept).SetBaseOffset(at)
		c.mu.Lock()
		b.batches = append(b.batches, sent{at, at + base.Offset(n), kept, h.ProducerID, seq})
		c.mu.Unlock()
		reqs = append(reqs, ingest.AppendRequest{TP: b.tp, Records: raw, ZstdAllowed: true})
		f.books, f.want, f.ends = append(f.books, b), append(f.want, at), append(f.ends, at+base.Offset(n))
	}
	if len(reqs) == 0 {
		return nil
	}
	f.receipt = in.Append(context.Background(), -1, 600000, reqs)
	return f
}

func (c *crashRun) settle(f *flight) {
	<-f.receipt.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, res := range f.receipt.Results() {
		if res.Err != nil || res.BaseOffset != f.want[i] {
			c.t.Fatalf("%s: append at %d: %+v", f.books[i].tp, f.want[i], res)
		}
		f.books[i].acked = max(f.books[i].acked, f.ends[i])
	}
}

// tier commits some of what is sealed.
func (c *crashRun) tier(in *ingest.Ingest, maxBytes int64) (settled int) {
	for _, r := range in.Sealed(maxBytes) {
		b := c.books[r.TP.Partition]
		if r.Base > b.root.TieredEnd {
			c.t.Fatalf("%s: sealed range [%d, %d) leaves a gap after the tiered end %d", r.TP, r.Base, r.End, b.root.TieredEnd)
		}
		next := r.Base
		err := in.ReadSealed(context.Background(), r.Log, r.Base, r.End, func(got record.Batch) error {
			if got.BaseOffset() != next {
				return fmt.Errorf("batch at %d, want %d", got.BaseOffset(), next)
			}
			next = got.NextOffset()
			return same(b, got)
		})
		if err == nil && next != r.End {
			err = fmt.Errorf("ends at %d", next)
		}
		if err != nil {
			c.t.Fatalf("%s: sealed range [%d, %d): %v", r.TP, r.Base, r.End, err)
		}
		c.mu.Lock()
		b.root.Log, b.root.TieredEnd = r.Log, r.End
		c.mu.Unlock()
		in.Tiered(r.Log, r.End)
		settled++
	}
	return settled
}

// same compares a stored batch with what was sent.
func same(b *book, got record.Batch) error {
	for i := range b.batches {
		if s := &b.batches[i]; s.base == got.BaseOffset() {
			want := record.Batch(bytes.Clone(s.bytes))
			want.SetLeaderEpoch(got.LeaderEpoch())
			if !bytes.Equal(want, got) {
				return fmt.Errorf("batch at %d differs from what was sent", s.base)
			}
			return nil
		}
	}
	return fmt.Errorf("no batch was sent for offset %d", got.BaseOffset())
}

func (c *crashRun) work(in *ingest.Ingest, steps int) {
	var flights []*flight
	for range steps {
		switch k := c.rng.IntN(20); {
		case k < 14:
			if f := c.appendSome(in); f != nil {
				flights = append(flights, f)
			}
		case k < 17:
			c.tier(in, 20<<10)
		case k == 17:
			b := c.books[c.rng.IntN(len(c.books))]
			c.mu.Lock()
			to := b.acked - base.Offset(c.rng.IntN(200))
			b.startAsked = max(b.startAsked, to)
			c.mu.Unlock()
			if to < 0 {
				continue
			}
			low, err := deleteRecords(in, b.tp, to)
			if err != nil || low < to {
				c.t.Fatalf("delete records of %s below %d: %d, %v", b.tp, to, low, err)
			}
			c.mu.Lock()
			b.start = max(b.start, low)
			c.mu.Unlock()
		}
		for len(flights) > c.rng.IntN(6) {
			c.settle(flights[0])
			flights = flights[1:]
		}
	}
	for _, f := range flights {
		c.settle(f)
	}
}

// TestCrashAnywhere cuts the power at many points of seeded workloads of idempotent producers, seals, commits to the bucket,
// trims, DeleteRecords and checkpoints, and checks that the recovered broker keeps every promise, and goes on keeping them.
func TestCrashAnywhere(t *testing.T) {
	seeds, steps := 3, 220
	if testing.Short() {
		seeds, steps = 1, 120
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { crashAnywhere(t, uint64(seed), steps) })
	}
}

func crashAnywhere(t *testing.T, seed uint64, steps int) {
	ctx := context.Background()
	kv := memkv.New(memkv.Options{})
	meta, err := metadata.Open(ctx, metadata.Options{KV: kv, BrokerID: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	c := &crashRun{t: t, rng: rand.New(rand.NewPCG(seed, 3)), cuts: rand.New(rand.NewPCG(seed, 5)), meta: meta, mem: vfs.NewCrashableMem()}
	c.incarnation()
	const partitions = 3
	_, err = meta.CreateTopic(ctx, metadata.TopicSpec{Name: "t", Partitions: partitions, ReplicationFactor: 1, Configs: map[string]string{"varve.tiering.max.lag.ms": "100"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int32(partitions) {
		tp := base.TopicPartition{Topic: "t", Partition: i}
		p, _ := meta.Image().Partition(tp)
		c.books = append(c.books, &book{tp: tp, log: p.Log, seqs: map[base.ProducerID]int32{}})
	}
	c.gap.Store(5)
	for range 2 { // with a clean restart in the middle
		store, in := openCrash(t, c.disk(crashfs.Wrap(c.mem)), meta, c.books)
		c.work(in, steps/2)
		closeCrash(t, store, in)
	}
	c.gap.Store(math.MaxInt64)
	t.Logf("%d operations, %d crash points", c.ops.Load(), len(c.points))
	for i, p := range c.points {
		if !t.Run(fmt.Sprintf("op=%d,unsynced=%d", p.op, p.unsynced), func(t *testing.T) { c.resume(t, p, uint64(i)) }) {
			return
		}
	}
}

// incarnation registers the broker anew, which gives every partition a new leader epoch.
func (c *crashRun) incarnation() {
	if _, err := c.meta.RegisterBroker(context.Background(), metadata.Broker{ID: 1, Host: "h", Port: 1}); err != nil {
		c.t.Fatal(err)
	}
}

// resume recovers a crash point, checks it, works on, crashes once more without anything unsynced, and checks again.
func (c *crashRun) resume(t *testing.T, p crashMoment, seed uint64) {
	d := &crashRun{t: t, rng: rand.New(rand.NewPCG(seed, 4)), meta: c.meta, mem: p.fs, books: p.books}
	d.incarnation()
	store, in := openCrash(t, p.fs, d.meta, d.books)
	d.verify(in)
	d.work(in, 12)
	again := p.fs.CrashClone(vfs.CrashCloneCfg{})
	after := d.copyBooks()
	closeCrash(t, store, in)
	d.incarnation()
	d.books = after
	store, in = openCrash(t, again, d.meta, d.books)
	d.verify(in)
	if seed%4 == 0 {
		d.drainTier(in)
	}
	closeCrash(t, store, in)
}

// verify compares recovered partitions with their books, and cuts the books to what survived.
func (c *crashRun) verify(in *ingest.Ingest) {
	c.t.Helper()
	for _, b := range c.books {
		if err := c.verifyBook(in, b); err != nil {
			c.t.Fatalf("%s: %v", b.tp, err)
		}
	}
}

func (c *crashRun) verifyBook(in *ingest.Ingest, b *book) error {
	p, err := in.Partition(b.tp)
	if err != nil {
		return err
	}
	v, err := p.View()
	switch {
	case err != nil:
		return err
	case v.LogEnd != v.HighWatermark || v.LogEnd < b.acked || v.LogEnd > b.end():
		return fmt.Errorf("log end %d, high watermark %d; acknowledged %d, sent %d", v.LogEnd, v.HighWatermark, b.acked, b.end())
	case v.LogStart < b.start || v.LogStart > b.startAsked:
		return fmt.Errorf("log start %d; deleted below %d, asked for %d", v.LogStart, b.start, b.startAsked)
	case v.TieredEnd != b.root.TieredEnd || v.HotStart > v.TieredEnd:
		return fmt.Errorf("hot start %d, tiered end %d, root says %d", v.HotStart, v.TieredEnd, b.root.TieredEnd)
	}
	var bytes int64
	for from := v.HotStart; from < v.LogEnd; {
		bs, err := p.ReadHot(from, v.LogEnd, 1<<20)
		if next, trimmed := replan(p, &v, from, err); trimmed {
			from, bytes = next, 0
			continue
		}
		if err != nil {
			return err
		}
		for _, got := range bs {
			if got.BaseOffset() != from {
				return fmt.Errorf("batch at %d, want %d", got.BaseOffset(), from)
			}
			if err := same(b, got); err != nil {
				return err
			}
			from, bytes = got.NextOffset(), bytes+int64(len(got))
		}
	}
	c.cut(b, v.LogEnd)
	s := p.Status()
	if off := s.HotBytes - bytes; off < -indexSlack || off > indexSlack || s.UntieredBytes < 0 || s.UntieredBytes > s.HotBytes {
		return fmt.Errorf("%d hot bytes, of them %d not tiered; there are %d", s.HotBytes, s.UntieredBytes, bytes)
	}
	return c.repeat(in, b, v.LogEnd)
}

// indexSlack is how far the byte counters may be off after a crash: a step of the sparse index and a batch.
const indexSlack = 256<<10 + 8<<10

// cut forgets what was sent and did not survive: it was never acknowledged.
func (c *crashRun) cut(b *book, end base.Offset) {
	for len(b.batches) > 0 && b.end() > end {
		b.batches = b.batches[:len(b.batches)-1]
	}
	b.batches = slices.Clip(b.batches)
	b.seqs = map[base.ProducerID]int32{}
	for _, s := range b.batches {
		b.seqs[s.producer] = s.seq + int32(s.next-s.base)
	}
	b.acked = end
}

// repeat sends the last batch of each producer again: it must be found, at its offset.
func (c *crashRun) repeat(in *ingest.Ingest, b *book, end base.Offset) error {
	last := map[base.ProducerID]sent{}
	for _, s := range b.batches {
		last[s.producer] = s
	}
	delete(last, 0)
	for id, s := range last {
		raw := bytes.Clone(s.bytes)
		record.Batch(raw).SetBaseOffset(0)
		r := in.Append(context.Background(), -1, 600000, []ingest.AppendRequest{{TP: b.tp, Records: raw, ZstdAllowed: true}})
		<-r.Done()
		if res := r.Results()[0]; res.Err != nil || res.BaseOffset != s.base {
			return fmt.Errorf("last batch of producer %d, at %d, sent again: %+v", id, s.base, res)
		}
	}
	if s, err := in.Status(b.tp); err != nil || s.LogEnd != end {
		return fmt.Errorf("repeated batches moved the log end from %d to %d, %v", end, s.LogEnd, err)
	}
	return nil
}

// drainTier seals and commits everything: no range is stuck.
func (c *crashRun) drainTier(in *ingest.Ingest) {
	c.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		c.tier(in, math.MaxInt64)
		left := 0
		for _, b := range c.books {
			s, err := in.Status(b.tp)
			if err != nil {
				c.t.Fatal(err)
			}
			if s.TieredEnd < s.LogEnd {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, b := range c.books {
				s, _ := in.Status(b.tp)
				c.t.Logf("%s: %+v", b.tp, s)
			}
			c.t.Fatalf("%d partitions are not tiered to their end", left)
		}
		<-time.After(time.Millisecond)
	}
}
