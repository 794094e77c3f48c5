package tiering_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/cache"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/record"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/segment"
	"github.com/varvelog/varve/tiering/tiertest"
)

// layouts are ways to store the same records: the answers must not depend on them.
var layouts = map[string]func(*tiering.Options){
	"default":      nil,
	"tiny objects": func(o *tiering.Options) { o.MaxObjectBytes, o.PackBelowBytes = 2<<10, 1<<10 },
	"all packed":   func(o *tiering.Options) { o.PackBelowBytes, o.MaxObjectBytes = 1<<20, 1<<20 },
	"never packed": func(o *tiering.Options) { o.PackBelowBytes = 1 },
	"no cache":     func(o *tiering.Options) { o.Cache = nil },
	"big blocks":   func(o *tiering.Options) { o.Layout = segment.Layout{BlockBytes: 1 << 20, IndexBytes: 1 << 20} },
	"tiny memory":  func(o *tiering.Options) { o.ManifestBytes, o.FooterBytes = 1, 1 },
	"lone commits": func(o *tiering.Options) { o.ManifestsPerCommit = 1 },
	"archives":     func(o *tiering.Options) { o.SpillEntries, o.UploadBytes = 3, 4<<10 },
}

// TestSameAnswersInEveryLayout is the metamorphic test of reads and of look-ups by time against a linear scan.
func TestSameAnswersInEveryLayout(t *testing.T) {
	for name, tune := range layouts {
		t.Run(name, func(t *testing.T) {
			e := tiertest.New(t, tune)
			logs := workload(e)
			e.Drain()
			for _, size := range []int{0, 100, 3000, 1 << 20} {
				e.CheckReads(size, logs...)
			}
			for _, l := range logs {
				checkTimes(e, l, 0)
			}
			dropSome(e, logs)
			e.CheckReads(2000, logs...)
			for _, l := range logs {
				checkTimes(e, l, l.LogStart)
			}
			e.CheckRoots()
			if rep := e.Fsck(24 * time.Hour); rep.Missing+rep.Corrupt != 0 {
				t.Fatalf("fsck: %+v", rep)
			}
		})
	}
}

// dropSome moves the log starts into the middle of a batch.
func dropSome(e *tiertest.Env, logs []*tiertest.Log) {
	e.T.Helper()
	for i, l := range logs {
		l.LogStart = l.End() * base.Offset(i+1) / 4
		e.Check(e.Tier.DropBelow(context.Background(), l.State.Log, l.LogStart))
		if b, _ := e.Tier.Reader().Bounds(l.State.Log); b.Start != l.LogStart {
			e.T.Fatalf("%s starts at %d, want %d", l.State.TP, b.Start, l.LogStart)
		}
	}
}

func checkTimes(e *tiertest.Env, l *tiertest.Log, start base.Offset) {
	e.T.Helper()
	ctx, r := context.Background(), e.Tier.Reader()
	recs := e.Records(l, start)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		ts := recs[rnd.IntN(len(recs))].Timestamp + int64(rnd.IntN(3)) - 1
		from := start + base.Offset(rnd.IntN(len(recs)))
		want, wantTs, wantOk := base.NoOffset, int64(-1), false
		for _, rec := range recs {
			if rec.Offset >= from && rec.Timestamp >= ts {
				want, wantTs, wantOk = rec.Offset, rec.Timestamp, true
				break
			}
		}
		off, at, ok, err := r.OffsetForTime(ctx, l.State.Log, ts, from)
		if err != nil || off != want || at != wantTs || ok != wantOk {
			e.T.Fatalf("%s: first at or after %d with time >= %d: %d@%d %v %v, want %d@%d", l.State.TP, from, ts, off, at, ok, err, want, wantTs)
		}
	}
	best := recs[0]
	for _, rec := range recs {
		if rec.Timestamp > best.Timestamp {
			best = rec
		}
	}
	off, at, ok, err := r.MaxTimestamp(ctx, l.State.Log)
	if err != nil || !ok || off != best.Offset || at != best.Timestamp {
		e.T.Fatalf("%s: max timestamp %d@%d %v %v, want %d@%d", l.State.TP, off, at, ok, err, best.Offset, best.Timestamp)
	}
}

func TestReadOutOfRange(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	read := func(l *tiertest.Log, at base.Offset) error {
		_, err := e.Tier.Reader().Read(context.Background(), l.State.Log, at, 1000)
		return err
	}
	if err := read(logs[0], 0); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("nothing tiered: %v", err)
	}
	e.Drain()
	dropSome(e, logs)
	for _, at := range []base.Offset{logs[0].LogStart - 1, logs[0].End(), logs[0].End() + 100, -1} {
		if err := read(logs[0], at); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("read at %d: %v", at, err)
		}
	}
}

func TestDamagedBytes(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	e.Drain()
	m, err := e.Tier.Manifest(context.Background(), logs[2].State.Log)
	e.Check(err)
	entry := m.Entries[1]
	if !e.Mem.Corrupt(entry.Object, entry.Pos+entry.Len/3) {
		t.Fatal("nothing to damage")
	}
	_, err = e.Tier.Reader().Read(context.Background(), logs[2].State.Log, entry.Base, 1<<20)
	if !base.IsCorruption(err) {
		t.Fatalf("read of a damaged block: %v", err)
	}
	e.CheckReads(1000, logs[0], logs[1])
	if rep := e.Fsck(time.Hour); rep.Corrupt != 1 || rep.CorruptDetails[0].Object != entry.Object {
		t.Fatalf("fsck: %+v", rep)
	}
}

// TestDamagedDirectory damages what only garbage collection reads: fsck must find it too.
func TestDamagedDirectory(t *testing.T) {
	e := tiertest.New(t, nil)
	workload(e)
	e.Drain()
	for _, key := range e.Mem.Keys() {
		if tiering.ParseName(key).Kind == tiering.KindPack {
			info, err := e.Mem.Head(context.Background(), key)
			e.Check(err)
			e.Mem.Corrupt(key, info.Size-segment.PackTrailerSize-3)
		}
	}
	if rep := e.Fsck(time.Hour); rep.Corrupt != 1 || rep.Missing != 0 {
		t.Fatalf("fsck: %+v", rep)
	}
}

// damagingReader flips a bit in everything that it reads: a cache over it holds damaged bytes of whole objects.
type damagingReader struct{ objstore.Reader }

func (d damagingReader) Get(ctx context.Context, key string, off, length int64) ([]byte, error) {
	b, err := d.Reader.Get(ctx, key, off, length)
	if len(b) > 0 {
		b[len(b)/2] ^= 4
	}
	return b, err
}

// TestDamagedCache damages what the cache holds, not the bucket: the reader notices and reads past it.
func TestDamagedCache(t *testing.T) {
	e := tiertest.New(t, func(o *tiering.Options) {
		c, err := cache.New(damagingReader{o.Bucket}, cache.Options{MemoryBytes: 1 << 20, BlockBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		o.Cache = c
	})
	logs := workload(e)
	e.Drain()
	e.CheckReads(3000, logs...)
}

func TestRebuildAndCat(t *testing.T) {
	e := tiertest.New(t, layouts["archives"])
	logs := workload(e)
	e.Drain()
	dropSome(e, logs)
	found, err := tiering.Rebuild(context.Background(), e.Mem)
	e.Check(err)
	roots, err := e.Store.Roots(context.Background())
	e.Check(err)
	if len(found) != len(roots) {
		t.Fatalf("%d logs rebuilt, %d roots", len(found), len(roots))
	}
	for log, root := range roots {
		got := found[log].Root()
		got.Rev = root.Rev
		if got != root {
			t.Errorf("rebuilt root %+v, want %+v", got, root)
		}
	}
	for _, l := range logs {
		want := e.Records(l, l.LogStart)
		checkCat(e, l, tiering.CatOptions{}, want)
		checkCat(e, l, tiering.CatOptions{FromOffset: want[5].Offset}, want[5:])
		ts := want[len(want)/2].Timestamp
		for i, rec := range want {
			if rec.Timestamp >= ts {
				checkCat(e, l, tiering.CatOptions{ByTime: true, FromTimeMs: ts}, want[i:])
				break
			}
		}
	}
}

func checkCat(e *tiertest.Env, l *tiertest.Log, o tiering.CatOptions, want []record.Record) {
	e.T.Helper()
	o.Topic, o.Partition = l.State.TP.Topic, l.State.TP.Partition
	var got []record.Record
	e.Check(tiering.Cat(context.Background(), e.Mem, o, func(_ record.Batch, r record.Record) error {
		got = append(got, r)
		return nil
	}))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		e.T.Fatalf("cat %s %+v: %d records, want %d, or they differ", l.State.TP, o, len(got), len(want))
	}
}
