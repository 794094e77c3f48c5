package hot

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
)

// modelLog is a log as a slice.
type modelLog struct {
	batches []record.Batch
	hotFrom base.Offset // From of the next trim
	end     base.Offset
	meta    *Meta
	index   []IndexEntry
	sealed  []Sealed
}

func (m *modelLog) read(from, upTo base.Offset, maxBytes int) (out []record.Batch) {
	size := 0
	for _, b := range m.batches {
		if b.LastOffset() < from {
			continue
		}
		if b.NextOffset() > upTo || len(out) > 0 && size+len(b) > maxBytes {
			break
		}
		out, size = append(out, b), size+len(b)
	}
	return out
}

// deleteRange is what a trim and a truncation of [from, to) mean.
func (m *modelLog) deleteRange(from, to base.Offset) {
	in := func(o base.Offset) bool { return o >= from && o < to }
	m.batches = deleteIf(m.batches, func(b record.Batch) bool { return in(b.LastOffset()) })
	m.index = deleteIf(m.index, func(e IndexEntry) bool { return in(e.Offset) })
	m.sealed = deleteIf(m.sealed, func(r Sealed) bool { return in(r.End - 1) })
}

func deleteIf[T any](s []T, del func(T) bool) (out []T) {
	for _, v := range s {
		if !del(v) {
			out = append(out, v)
		}
	}
	return out
}

// modelRun applies one random sequence of operations to a store and to the model.
type modelRun struct {
	t    *testing.T
	rng  *rand.Rand
	fs   *vfs.MemFS
	opts Options
	s    *Store
	logs map[base.LogID]*modelLog
}

const modelLogs = 4

// TestModel compares the store with slices under random operations. VARVE_SEED repeats one run.
func TestModel(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if v, err := strconv.ParseUint(os.Getenv("VARVE_SEED"), 10, 64); err == nil {
		seeds = []uint64{v}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := &modelRun{t: t, rng: rand.New(rand.NewPCG(seed, seed)), fs: vfs.NewMem(), logs: map[base.LogID]*modelLog{}}
			for id := base.LogID(1); id <= modelLogs; id++ {
				r.logs[id] = &modelLog{}
			}
			// The same operations under different memtables and caches must give the same reads.
			r.opts = testOptions(r.fs)
			r.opts.MemTableBytes = 256 << 10 << (seed % 4)
			r.opts.CacheBytes = int64(seed%2) << 20
			r.s = openTest(t, r.opts)
			for range 600 {
				r.step()
			}
			r.checkAll()
		})
	}
}

func (r *modelRun) step() {
	id := base.LogID(1 + r.rng.IntN(modelLogs))
	l := r.logs[id]
	switch p := r.rng.IntN(100); {
	case p < 55:
		r.append(id, l)
	case p < 65:
		r.trim()
	case p < 70:
		r.truncate(id, l)
	case p < 94:
		r.checkRead(id, l)
	case p < 96:
		if err := r.s.Reclaim(); err != nil {
			r.t.Fatal(err)
		}
	case p < 97:
		r.drop(id)
	default:
		r.reopen()
		r.checkAll()
	}
}

func (r *modelRun) append(id base.LogID, l *modelLog) {
	w := r.s.NewWriteSize(r.rng.IntN(100_000))
	for range 1 + r.rng.IntN(6) {
		b := testBatch(l.end, 1+r.rng.IntN(20), r.rng.IntN(6000), r.rng.Uint64())
		w.Append(id, b)
		if r.rng.IntN(3) == 0 {
			e := IndexEntry{Offset: l.end, Bytes: r.rng.Int64(), MaxTimestamp: r.rng.Int64()}
			w.SetIndex(id, e)
			// A truncation inside a batch leaves the entry of its base, which this one replaces.
			l.index = append(deleteIf(l.index, func(old IndexEntry) bool { return old.Offset == e.Offset }), e)
		}
		l.batches, l.end = append(l.batches, b), b.NextOffset()
	}
	if n := len(l.sealed); r.rng.IntN(4) == 0 && (n == 0 || l.sealed[n-1].End < l.end) {
		row := Sealed{Base: l.end - 1, End: l.end, Bytes: 7, Producers: r.producers()}
		w.SetSealed(id, &row)
		l.sealed = append(l.sealed, row)
	}
	if r.rng.IntN(4) == 0 {
		l.meta = &Meta{HotStart: l.hotFrom, End: l.end, Producers: r.producers()}
		w.SetMeta(id, l.meta)
	}
	if r.rng.IntN(5) == 0 {
		if err := r.s.ApplyNoSync(w); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	commit(r.t, r.s, w)
}

// producers is a snapshot on either side of the size at which Pebble separates values.
func (r *modelRun) producers() []byte {
	return bytes.Repeat([]byte{byte(r.rng.Uint32())}, 1+r.rng.IntN(3)*900)
}

// trim drops a random prefix of some logs, also in the middle of a batch.
func (r *modelRun) trim() {
	var trims []Trim
	for id := base.LogID(1); id <= modelLogs; id++ {
		l := r.logs[id]
		if r.rng.IntN(2) == 0 || l.end == l.hotFrom {
			continue
		}
		to := l.hotFrom + base.Offset(r.rng.Int64N(int64(l.end-l.hotFrom)+1))
		l.deleteRange(l.hotFrom, to)
		l.meta = &Meta{HotStart: to, End: l.end}
		trims = append(trims, Trim{Log: id, From: l.hotFrom, To: to, Meta: l.meta})
		l.hotFrom = to
	}
	if err := r.s.TrimAll(trims); err != nil {
		r.t.Fatal(err)
	}
}

func (r *modelRun) truncate(id base.LogID, l *modelLog) {
	if l.end == l.hotFrom {
		return
	}
	from := l.end - base.Offset(r.rng.Int64N(min(int64(l.end-l.hotFrom), 200)))
	w := r.s.NewWrite()
	w.Truncate(id, from, l.end)
	l.deleteRange(from, l.end)
	l.index = deleteIf(l.index, func(e IndexEntry) bool { return e.Offset == l.end })
	l.end = min(from, l.end)
	if n := len(l.batches); n > 0 {
		l.end = l.batches[n-1].NextOffset()
	}
	l.hotFrom = min(l.hotFrom, l.end)
	l.meta = &Meta{HotStart: l.hotFrom, End: l.end}
	w.SetMeta(id, l.meta)
	commit(r.t, r.s, w)
}

func (r *modelRun) drop(id base.LogID) {
	if err := r.s.Drop([]base.LogID{id}); err != nil {
		r.t.Fatal(err)
	}
	r.logs[id] = &modelLog{}
}

// reopen restarts the store.
func (r *modelRun) reopen() {
	if err := r.s.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.s = openTest(r.t, r.opts)
}

func (r *modelRun) checkRead(id base.LogID, l *modelLog) {
	from := base.Offset(r.rng.Int64N(int64(l.end) + 2))
	upTo := from + base.Offset(r.rng.IntN(200))
	maxBytes := r.rng.IntN(30_000)
	wantRead(r.t, r.s, id, from, upTo, maxBytes, l.read(from, upTo, maxBytes))
}

func (r *modelRun) checkAll() {
	r.t.Helper()
	logs, err := r.s.Logs()
	if err != nil {
		r.t.Fatal(err)
	}
	found := map[base.LogID]Log{}
	for _, l := range logs {
		found[l.ID] = l
	}
	for id, l := range r.logs {
		wantRead(r.t, r.s, id, 0, l.end, 1<<30, l.batches)
		got, ok := found[id]
		if ok != (len(l.batches) > 0 || l.meta != nil) {
			r.t.Fatalf("log %s: found %v", id, ok)
		}
		if !ok {
			continue
		}
		want := Log{ID: id, End: l.end, Sealed: l.sealed, Index: l.index}
		if l.meta != nil {
			want.Meta = *l.meta
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			r.t.Fatalf("log %s:\n got %.2000s\nwant %.2000s", id, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
		}
	}
}

// TestReadWhileWriting reads every log while it is appended to, trimmed and compacted. A read up to a confirmed end, from above the
// trims, is complete and right.
func TestReadWhileWriting(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	opts.MemTableBytes = 256 << 10
	s := openTest(t, opts)
	w := newWorkload(s)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for id := base.LogID(1); id <= workloadLogs; id++ {
		readers.Go(func() {
			for reads := 0; ; reads++ {
				select {
				case <-stop:
					if reads == 0 {
						t.Errorf("log %s was not read", id)
					}
					return
				default:
				}
				end := w.promised()[id].acked
				got, err := s.Read(id, 0, end, 1<<30)
				start := w.promised()[id].trimReq
				if err != nil {
					t.Error(err)
					return
				}
				next := base.NoOffset
				for _, b := range got {
					first := b.BaseOffset()
					if next == base.NoOffset && first > start || next != base.NoOffset && first != next ||
						!bytes.Equal(b, testBatch(first, workloadBatch, 3000*int(id), uint64(id))) {
						t.Errorf("log %s: batch at %d after %d, trimmed to %d", id, first, next, start)
						return
					}
					next = b.NextOffset()
				}
				if len(got) > 0 && next != end {
					t.Errorf("log %s: read ends at %d, confirmed is %d", id, next, end)
					return
				}
			}
		})
	}
	if err := w.run(0, 100); err != nil {
		t.Error(err)
	}
	close(stop)
	readers.Wait()
}
