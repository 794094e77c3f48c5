package txn

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

var seed = flag.Uint64("seed", 0, "seed of the random operations; 0 takes a new one")

// seeds are the runs of a property test: one given, or a few new ones, which are printed.
func seeds(t *testing.T, n int) []uint64 {
	if *seed != 0 {
		return []uint64{*seed}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = rand.Uint64()>>1 + 1
	}
	return out
}

func (w *workbench) traceOnFailure(seed uint64) {
	if w.t.Failed() {
		all := strings.Split(w.trace.String(), "\n")
		w.t.Logf("repeat with -seed %d; the end of the trace:\n%s", seed, strings.Join(all[max(0, len(all)-60):], "\n"))
	}
}

// TestReplayEqualsState: with many steps in flight at a time, whichever appends are lost and whenever the leader changes, a machine that
// replays the committed records is the machine that wrote them, everybody is answered in the end, once, every decision is carried out,
// and none is both a commit and an abort (the workbench checks that).
func TestReplayEqualsState(t *testing.T) {
	for _, s := range seeds(t, 100) {
		t.Run(fmt.Sprint("seed=", s), func(t *testing.T) {
			w, r := newWorkbench(t), rand.New(rand.NewPCG(s, 7))
			w.soonExpired()
			defer w.traceOnFailure(s)
			for range 300 {
				w.random(r)
			}
			w.quiesce()
			if got, want := showAll(w.replayed()), showAll(w.m); got != want {
				t.Errorf("after replay:\n%sbefore:\n%s", got, want)
			}
		})
	}
}

// soonExpired lets a life of minutes have all that happens in one of weeks.
func (w *workbench) soonExpired() {
	w.cfg.IDExpiration, w.cfg.IDExpirationCheck = 10*time.Minute, time.Minute
	w.reload()
}

// random does one operation with few names, so that operations meet.
func (w *workbench) random(r *rand.Rand) {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	id := pick("x", "y", "z")
	who := "id=" + id + " p=7/0"
	if t := w.m.txns[id]; t != nil {
		who = fmt.Sprintf("id=%s p=%d/%d", id, t.producerID, max(0, int(t.epoch)-r.IntN(4)/3))
	}
	cmd := pick(
		"init id="+id, "init "+who, "add "+who+" "+pick("t/0", "t/1"), "add "+who+" "+pick("t/0", "t/1"), "add v=0 "+who+" u/0",
		"commit "+who, "commit "+who, "abort "+who, "commit v=4 "+who, "abort v=4 "+who, "verify "+who+" t/0", "describe id="+id, "list",
		"written "+id, "written "+id, "written", "advance "+pick("0s", "1s", "15s", "2m", "20m"), "ids "+pick("none", "some"),
		"hold", "hold", "release", "release", "lose "+pick("min-isr", "large"), "reload",
	)
	if cmd == "hold" && w.hold {
		cmd = "release"
	}
	w.printf("%s", cmd)
	w.command(strings.Fields(cmd))
}

// quiesce lets everything come to its end: nothing in flight, no transaction open.
func (w *workbench) quiesce() {
	w.printf("quiesce")
	w.command([]string{"release"})
	for range 8 {
		w.advance(2 * time.Minute)
		w.command([]string{"ids", "some"})
		w.written("")
	}
	for _, c := range w.callers {
		w.t.Errorf("%s was never answered", c.name)
	}
	for _, t := range w.m.sorted() {
		if t.state == stateOngoing || t.preparing() {
			w.t.Errorf("%s is %s at the end", t.id, t.state)
		}
	}
}

// TestEachAppendLost runs one life of two transactional ids, losing the n-th append for every n: nobody hangs, and what is there
// afterwards is what the log has.
func TestEachAppendLost(t *testing.T) {
	life := []string{
		"init", "add p=101/0 t/0", "commit p=101/0", "written", "abort p=101/1", "written", "init p=101/2", "add p=101/3 t/0", "init",
		"written", "init", "seed id=y p=50/32766", "add id=y p=50/32766 t/0", "commit id=y p=50/32766", "reload", "written",
		"add id=y p=102/0 u/1", "advance 2m", "written", "advance 20m",
	}
	for _, err := range []error{kerr.NotEnoughReplicas, kerr.MessageTooLarge, errors.New("odd")} {
		appends := 1
		for n := 1; n <= appends; n++ {
			w := newWorkbench(t)
			w.soonExpired()
			w.loseAt, w.loseErr = n, err
			for _, cmd := range life {
				w.printf("%s", cmd)
				w.command(strings.Fields(cmd))
			}
			w.quiesce()
			if got, want := showAll(w.replayed()), showAll(w.m); got != want {
				t.Errorf("after replay:\n%sbefore:\n%s", got, want)
			}
			if t.Failed() {
				t.Fatalf("append %d lost with %v:\n%s", n, err, w.trace.String())
			}
			appends = max(appends, w.appends)
		}
		if appends < 15 {
			t.Fatalf("the life has %d appends only", appends)
		}
	}
}
