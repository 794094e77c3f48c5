package ingest_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/metadata/controller"
	"github.com/varvelog/varve/metadata/memkv"
	"github.com/varvelog/varve/record"
)

const followerID = 2

// newFollower is broker 2 over a KV where broker 1 leads the topic's one partition, in the given leader epoch.
func newFollower(t *testing.T, epoch base.LeaderEpoch, o ingest.Options) (*env, base.TopicPartition) {
	t.Helper()
	e := &env{t: t, fs: vfs.NewCrashableMem(), kv: memkv.New(memkv.Options{}), id: followerID, opts: o}
	leader, err := metadata.Open(t.Context(), metadata.Options{KV: e.kv, BrokerID: 1})
	e.check(err)
	defer leader.Close()
	_, err = leader.RegisterBroker(t.Context(), metadata.Broker{ID: 1, Host: "localhost", Port: 9092})
	e.check(err)
	e.open()
	t.Cleanup(e.close)
	e.until("the leader knows the follower", func() bool { _, ok := leader.Image().BrokerByID(followerID); return ok })
	_, err = leader.CreateTopic(t.Context(), metadata.TopicSpec{
		Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]base.BrokerID{0: {1, followerID}},
	}, false)
	e.check(err)
	tp := base.TopicPartition{Topic: "t"}
	e.decide(leader, tp, controller.State{Leader: 1, LeaderEpoch: epoch})
	e.until("the follower sees the leader's epoch", func() bool {
		p, ok := e.meta.Image().Partition(tp)
		return ok && p.LeaderEpoch == epoch && e.Replica(p.Log) != nil && ingest.FollowsUnder(e.Replica(p.Log)) == epoch
	})
	return e, tp
}

// replicated is what the follower's log should be.
type replicated struct {
	t       *testing.T
	e       *env
	log     base.LogID
	rng     *rand.Rand
	batches []record.Batch
	epoch   base.LeaderEpoch // of the leader
	seq     map[base.ProducerID]int32
}

func newReplicated(e *env, log base.LogID, epoch base.LeaderEpoch, random rand.Source) *replicated {
	return &replicated{t: e.t, e: e, log: log, rng: rand.New(random), epoch: epoch, seq: map[base.ProducerID]int32{}}
}

func (r *replicated) end() base.Offset {
	if n := len(r.batches); n > 0 {
		return r.batches[n-1].NextOffset()
	}
	return 0
}

// next builds a batch that a leader would send next.
func (r *replicated) next() record.Batch {
	id := base.ProducerID(1 + r.rng.IntN(3))
	n := 1 + r.rng.IntN(5)
	b := record.Batch(batch(r.t, n, nowTs+r.rng.Int64N(1000), record.BuildHeader{ProducerID: id, BaseSequence: r.seq[id]}))
	r.seq[id] += int32(n)
	b.SetBaseOffset(r.end())
	epoch := base.LeaderEpoch(0)
	if k := len(r.batches); k > 0 {
		epoch = r.batches[k-1].LeaderEpoch()
	}
	if r.rng.IntN(4) == 0 {
		epoch = min(r.epoch, epoch+base.LeaderEpoch(r.rng.IntN(3)))
	}
	b.SetLeaderEpoch(epoch)
	return b
}

// write sends one random FollowerWrite and changes the model alike.
func (r *replicated) write() {
	w := ingest.FollowerWrite{Log: r.log, Epoch: r.epoch, TruncateTo: base.NoOffset}
	if r.rng.IntN(5) == 0 {
		w.TruncateTo = base.Offset(r.rng.Int64N(int64(r.end()) + 3)) // anywhere, or, as most are, near the end
		if r.rng.IntN(3) > 0 {
			w.TruncateTo = max(w.TruncateTo, r.end()-10)
		}
		for len(r.batches) > 0 && r.end() > w.TruncateTo {
			r.batches = r.batches[:len(r.batches)-1]
		}
	}
	for range r.rng.IntN(6) {
		b := r.next()
		w.Batches = append(w.Batches, slices.Clone(b))
		r.batches = append(r.batches, b)
	}
	w.HighWatermark = base.Offset(r.rng.Int64N(int64(r.end()) + 10))
	if err := r.e.ApplyFollower(context.Background(), []ingest.FollowerWrite{w})[0]; err != nil {
		r.t.Fatalf("write truncating to %d: %v", w.TruncateTo, err)
	}
	for _, b := range w.Batches { // the caller's again
		clear(b)
	}
}

// check compares the log, its counters and its state with the model.
func (r *replicated) check() {
	r.t.Helper()
	p := r.e.Replica(r.log)
	stored, err := r.e.store.ReadVerified(r.log, 0, r.end()+100, 1<<30)
	r.e.check(err)
	if !slices.EqualFunc(stored, r.batches, func(a, b record.Batch) bool { return bytes.Equal(a, b) }) {
		r.t.Fatalf("the log has %d batches, want %d", len(stored), len(r.batches))
	}
	var size int64
	var epochs []base.EpochStart
	for _, b := range r.batches {
		size += int64(len(b))
		if n := len(epochs); n == 0 || epochs[n-1].Epoch < b.LeaderEpoch() {
			epochs = append(epochs, base.EpochStart{Epoch: b.LeaderEpoch(), Start: b.BaseOffset()})
		}
	}
	if s := p.Status(); s.LogEnd != r.end() || s.HotBytes != size || s.HighWatermark > s.LogEnd {
		r.t.Fatalf("status %+v, want end %d, %d bytes", s, r.end(), size)
	}
	if got := ingest.EpochsOf(p); !slices.Equal(got, epochs) {
		r.t.Fatalf("epochs %v, want %v", got, epochs)
	}
	if got, want := ingest.ProducersOf(p), ingest.ProducersAfter(r.batches); got != want {
		r.t.Fatalf("producers\n%swant\n%s", got, want)
	}
	from, open := ingest.OpenBytesOf(p)
	for _, b := range r.batches {
		if b.BaseOffset() >= from {
			open -= int64(len(b))
		}
	}
	if open != 0 {
		r.t.Fatalf("the open range from %d is off by %d bytes", from, open)
	}
	r.checkTimes(p)
}

// checkTimes reads what is visible and looks timestamps up.
func (r *replicated) checkTimes(p *ingest.Partition) {
	r.t.Helper()
	visible := slices.DeleteFunc(slices.Clone(r.batches), func(b record.Batch) bool { return b.NextOffset() > p.Status().HighWatermark })
	if len(visible) == 0 {
		return
	}
	upTo := visible[len(visible)-1].NextOffset()
	from := visible[r.rng.IntN(len(visible))].BaseOffset()
	read, err := p.ReadHot(from, upTo, 1<<30)
	r.e.check(err)
	if want := visible[len(visible)-len(read):]; read[0].BaseOffset() != from || !slices.EqualFunc(read, want, func(a, b record.Batch) bool { return bytes.Equal(a, b) }) {
		r.t.Fatalf("%d batches from %d, want %d", len(read), from, len(want))
	}
	for range 3 {
		ts := nowTs + r.rng.Int64N(1100) - 50
		want := base.NoOffset
		for _, b := range visible {
			if off, _, ok, err := b.FindTime(ts); ok || err != nil {
				r.e.check(err)
				want = off
				break
			}
		}
		got, ok, err := p.FindTime(ts, 0, upTo)
		r.e.check(err)
		if ok != (want >= 0) || ok && got.Offset != want {
			r.t.Fatalf("first record at or after %d: %v %v, want offset %d", ts, got, ok, want)
		}
	}
}

// TestFollowerEqualsModel sends random writes to a follower: appends, truncations, both at once; it crashes and is restarted in
// between. Its log, epochs, producers, index and counters are those of a log that was written straight, with batches in the tail
// (odd seeds) and without.
func TestFollowerEqualsModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			e, tp := newFollower(t, 8, ingest.Options{MaxSealBytes: 1 << 10, EagerHighWatermark: seed%2 == 1})
			state, _ := e.meta.Image().Partition(tp)
			r := newReplicated(e, state.Log, 8, rand.NewPCG(seed, 7))
			for range 60 {
				r.write()
				r.check()
				switch r.rng.IntN(12) {
				case 0:
					e.crash()
					r.check()
				case 1:
					e.close()
					e.open()
					r.check()
				}
			}
		})
	}
}

// TestFollowerRefuses sends writes that do not fit; each is refused and changes nothing, and another log's part goes through.
func TestFollowerRefuses(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 1))
	for r.end() < 20 {
		r.write()
	}
	at := func(off base.Offset, epoch base.LeaderEpoch) record.Batch {
		b := r.next()
		b.SetBaseOffset(off)
		b.SetLeaderEpoch(epoch)
		return b
	}
	for name, c := range map[string]struct {
		write ingest.FollowerWrite
		code  *kerr.Error // nil: corruption
	}{
		"older leader":         {ingest.FollowerWrite{Log: r.log, Epoch: 2, TruncateTo: 3}, kerr.FencedLeaderEpoch},
		"newer leader":         {ingest.FollowerWrite{Log: r.log, Epoch: 4, TruncateTo: 3}, kerr.FencedLeaderEpoch},
		"unknown log":          {ingest.FollowerWrite{Log: r.log + 1, Epoch: 3, TruncateTo: 3}, kerr.UnknownTopicOrPartition},
		"gap":                  {ingest.FollowerWrite{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: []record.Batch{at(r.end()+1, 3)}}, nil},
		"overlap":              {ingest.FollowerWrite{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: []record.Batch{at(r.end()-1, 3)}}, nil},
		"epoch ahead":          {ingest.FollowerWrite{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: []record.Batch{at(r.end(), 4)}}, nil},
		"gap after truncation": {ingest.FollowerWrite{Log: r.log, Epoch: 3, TruncateTo: 5, Batches: []record.Batch{at(r.end(), 3)}}, nil},
	} {
		err := e.ApplyFollower(t.Context(), []ingest.FollowerWrite{c.write})[0]
		if c.code != nil && !isCode(err, c.code) || c.code == nil && !base.IsCorruption(err) {
			t.Errorf("%s: %v", name, err)
		}
		r.check()
	}
	if err := e.put(tp, batch(t, 1, nowTs, record.BuildHeader{})).Err; !isCode(err, kerr.NotLeaderForPartition) {
		t.Errorf("produce to a follower: %v", err)
	}
}

// TestFollowerStartsOver gives a follower a log whose beginning is tiered: it goes on from there, also after a crash.
func TestFollowerStartsOver(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 2))
	for r.end() < 20 {
		r.write()
	}
	start := &ingest.FollowerStart{At: 1000, Epochs: []base.EpochStart{{Epoch: 0, Start: 0}, {Epoch: 2, Start: 700}}}
	b := r.next()
	b.SetBaseOffset(1000)
	b.SetLeaderEpoch(3)
	err := e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{
		Log: r.log, Epoch: 3, StartOver: start, TruncateTo: base.NoOffset, Batches: []record.Batch{b}, HighWatermark: 1000, LogStart: 400,
	}})[0]
	e.check(err)
	for range 2 {
		p := e.Replica(r.log)
		if s := p.Status(); s.LogStart != 400 || s.HotStart != 1000 || s.LogEnd != b.NextOffset() || s.HotBytes != int64(len(b)) {
			t.Fatalf("status %+v", s)
		}
		if got, want := ingest.EpochsOf(p), append(slices.Clone(start.Epochs), base.EpochStart{Epoch: 3, Start: 1000}); !slices.Equal(got, want) {
			t.Fatalf("epochs %v, want %v", got, want)
		}
		e.close()
		e.open()
	}
}

// A follower holds records that its leader never had, and others are tiered at these offsets: it keeps them until it is told to
// truncate (found by make torture, seed 4).
func TestFollowerKeepsWhatDiverges(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{HotBytes: 1, UntieredBytes: 1, TickEvery: time.Hour})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 4))
	common := base.NoOffset // up to here the leader has the same
	apply := func(w ingest.FollowerWrite) {
		t.Helper()
		w.Log, w.Epoch = r.log, 3
		e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{w})[0])
	}
	status := func() ingest.Status { return e.Replica(r.log).Status() }
	for half := range 2 {
		for range 20 {
			b := r.next()
			r.batches = append(r.batches, b)
			if half == 0 {
				common = r.end()
			}
			apply(ingest.FollowerWrite{TruncateTo: base.NoOffset, Batches: []record.Batch{slices.Clone(b)}, HighWatermark: common})
		}
		ingest.Housekeep(e.Ingest) // seals
		e.Tiered(r.log, r.end()+1000*base.Offset(half))
		ingest.Housekeep(e.Ingest) // trims
		if s := status(); s.HotStart != common {
			t.Fatalf("trimmed to %d, want %d", s.HotStart, common)
		}
	}
	e.close()
	e.open()
	e.Tiered(r.log, r.end()+1000)
	apply(ingest.FollowerWrite{TruncateTo: common, HighWatermark: common})
	if s := status(); s.LogEnd != common || s.HighWatermark > common {
		t.Errorf("log end %d, high watermark %d, want %d", s.LogEnd, s.HighWatermark, common)
	}
}

// TestFollowerTruncatesBelowTheTieredEnd cuts off what a broker wrote as a leader of the past, while others tiered what took its
// place: the log is then behind its manifest, and what is tiered speaks for the others' records, not for these.
func TestFollowerTruncatesBelowTheTieredEnd(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 3))
	for r.end() < 40 {
		r.write()
	}
	e.Tiered(r.log, r.end()+10)
	to := r.batches[len(r.batches)-1].BaseOffset()
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{Log: r.log, Epoch: 3, TruncateTo: to}})[0])
	if s := e.Replica(r.log).Status(); s.LogEnd != to || s.HighWatermark > to {
		t.Errorf("status %+v, want the end %d", s, to)
	}
}

// damage takes the log out of service, which ends the leader's epoch.
func (r *replicated) damage() {
	r.t.Helper()
	ingest.Damage(r.e.Replica(r.log))
	r.epoch++
	r.e.until("the damage is reported", func() bool { return ingest.FollowsUnder(r.e.Replica(r.log)) == r.epoch })
}

// A damaged replica takes nothing but a start from the beginning, and serves again after it (I14).
func TestDamagedFollowerStartsOver(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 5))
	for r.end() < 40 {
		r.write()
	}
	r.damage()
	more := ingest.FollowerWrite{Log: r.log, Epoch: r.epoch, TruncateTo: base.NoOffset, Batches: []record.Batch{r.next()}}
	if err := e.ApplyFollower(t.Context(), []ingest.FollowerWrite{more})[0]; !isCode(err, kerr.KafkaStorageError) {
		t.Fatalf("a damaged log was written: %v", err)
	}
	more.StartOver = &ingest.FollowerStart{}
	more.Batches = nil
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{more})[0])
	r.batches = nil
	for r.end() < 40 {
		r.write()
	}
	r.check()
}

// TestRestartKnowsNothingOfItsForkFromTheBucket: what a broker wrote in an epoch that lost may lie below the end that others
// tiered since. Until a leader has compared it, none of it is visible (I3).
func TestRestartKnowsNothingOfItsForkFromTheBucket(t *testing.T) {
	e, tp := newFollower(t, 3, ingest.Options{})
	state, _ := e.meta.Image().Partition(tp)
	r := newReplicated(e, state.Log, 3, rand.NewPCG(1, 4))
	for r.end() < 40 {
		r.write()
	}
	b := r.next()
	b.SetBaseOffset(r.end())
	b.SetLeaderEpoch(3)
	e.check(e.ApplyFollower(t.Context(), []ingest.FollowerWrite{{Log: r.log, Epoch: 3, TruncateTo: base.NoOffset, Batches: []record.Batch{b}}})[0])
	committed := e.Replica(r.log).Status().HighWatermark
	root := metadata.Root{Log: r.log, Epoch: state.LeaderEpoch, Seq: 1, TieredEnd: b.NextOffset() + 10, Object: "x"}
	e.check(e.meta.SwapRoots(t.Context(), []*metadata.Root{&root})[0])
	e.close()
	e.open()
	if s := e.Replica(r.log).Status(); s.HighWatermark != committed {
		t.Errorf("high watermark %d after a restart, %d before, log end %d", s.HighWatermark, committed, b.NextOffset())
	}
}
