package tiering_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// workload seals quiet and busy ranges of three partitions: packs, single objects, and ranges that are cut in pieces.
func workload(e *tiertest.Env) []*tiertest.Log {
	rnd := rand.New(rand.NewPCG(7, 7))
	logs := e.Topic("t", 3, nil)
	for range 2 {
		e.Source.Fill(logs[0], rnd, 3, 50)   // a few KiB: packed
		e.Source.Fill(logs[1], rnd, 2, 40)   // packed
		e.Source.Fill(logs[2], rnd, 30, 200) // about 60 KiB: several objects
	}
	return logs
}

func TestRoundTrip(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	e.Drain()
	e.CheckReads(1, logs...)
	e.CheckReads(7000, logs...)
	e.CheckReads(1<<20, logs...)
	e.CheckRoots()
	rep := e.Fsck(time.Hour)
	if !rep.Clean() || rep.Logs != 3 || rep.Segments < 10 || rep.Unknown != 0 {
		t.Fatalf("fsck: %+v", rep)
	}
	kinds := map[tiering.Kind]int{}
	for _, key := range e.Mem.Keys() {
		kinds[tiering.ParseName(key).Kind]++
	}
	if kinds[tiering.KindPack] != 1 || kinds[tiering.KindManifest] != 1 || kinds[tiering.KindSegment] < 6 {
		t.Fatalf("objects by kind: %v", kinds)
	}
	in, err := e.Store.Intents(context.Background())
	if err != nil || len(in) != 0 {
		t.Fatalf("intents left: %v %v", in, err)
	}
	for _, l := range logs {
		if l.Tiered != l.End() || l.Refused != 0 {
			t.Fatalf("%s: tiered to %d of %d, %d refused", l.State.TP, l.Tiered, l.End(), l.Refused)
		}
	}
}

// TestEveryOperationFails breaks the n-th operation of bucket and metadata store on the way from sealed to tiered, for
// every n, in every way, and demands that all is read back, that the roots are right, and that nothing was lost.
func TestEveryOperationFails(t *testing.T) {
	for _, mode := range tiertest.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			for n := 1; ; n++ {
				if !breakOperation(t, n, mode) {
					if n < 10 {
						t.Fatalf("only %d operations on the whole path", n-1)
					}
					return
				}
			}
		})
	}
}

func breakOperation(t *testing.T, n int, mode tiertest.Mode) (hit bool) {
	t.Run(fmt.Sprint(n), func(t *testing.T) {
		e := tiertest.New(t, nil)
		logs := workload(e)
		e.Faults.Arm(n, mode)
		ctx, cancel := context.WithCancel(context.Background())
		for range 10 {
			_, err := e.Tier.RunOnce(ctx)
			if e.Faults.Crashed() {
				cancel()
				break
			}
			if err == nil && len(e.Source.Sealed(1<<62)) == 0 {
				break
			}
		}
		cancel()
		crashed := e.Faults.Crashed()
		ops := e.Faults.Ops()
		hit = e.Faults.Disarm()
		if crashed {
			e.Restart()
		}
		rnd := rand.New(rand.NewPCG(8, 8))
		e.Source.Fill(logs[0], rnd, 3, 50)
		e.Drain()
		defer func() {
			if t.Failed() {
				t.Log(ops)
			}
		}()
		e.CheckReads(5000, logs...)
		e.CheckRoots()
		rep := e.Fsck(24 * time.Hour)
		if rep.Missing != 0 || rep.Corrupt != 0 {
			t.Fatalf("fsck: %+v", rep)
		}
		for _, l := range logs {
			if l.Tiered != l.End() || l.Refused != 0 {
				t.Fatalf("%s: tiered to %d of %d, %d refused", l.State.TP, l.Tiered, l.End(), l.Refused)
			}
		}
	})
	return hit
}
