package group

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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

// TestReplayEqualsState: whatever happened and whichever appends were lost, a machine that replays the committed records
// has the same offsets and groups, everybody is answered in the end, exactly once, and groups at rest whose records were
// not lost are equal in all that is durable.
func TestReplayEqualsState(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		for _, s := range seeds(t, 150) {
			t.Run(fmt.Sprintf("lossy=%v/seed=%d", lossy, s), func(t *testing.T) {
				w := newWorkbench(t)
				w.cfg.MaxSize = 4
				defer func() {
					if t.Failed() {
						t.Logf("repeat with -seed %d; the end of the trace:\n%s", s, tail(w.trace.String(), 60))
					}
				}()
				r := rand.New(rand.NewPCG(s, 7))
				for range 300 {
					w.random(r, lossy)
				}
				w.quiesce()
				compareReplay(t, w, lossy)
			})
		}
	}
}

// random does one operation with few names, so that operations meet.
func (w *workbench) random(r *rand.Rand, lossy bool) {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	g := "g=" + pick("g1", "g2", "g3")
	grp := w.m.groups[g[2:]]
	id, gen := "", 0
	if grp != nil {
		ids := append(slices.Sorted(maps.Keys(grp.members)), slices.Sorted(maps.Keys(grp.pendingJoin))...)
		if len(ids) > 0 {
			id = ids[r.IntN(len(ids))]
		}
		gen = int(grp.generation)
	}
	inst := ""
	if grp != nil && grp.members[id] != nil && grp.members[id].instanceID != nil {
		inst = " inst=" + *grp.members[id].instanceID
	}
	member := fmt.Sprintf("%s id=%s gen=%d%s", g, id, gen, inst)
	cmd := pick(
		"join "+g+" v="+pick("3", "8", "9")+" p="+pick("range:t", "range:t,rr:u", "rr:v,range", "range:garbage"),
		"join "+g+" inst="+pick("i1", "i2")+" p="+pick("range:t", "range:u"),
		"join "+g+" id="+id+inst+" p="+pick("range:t", "range:t,rr:u"),
		"join "+g+" id="+id+inst+" p="+pick("range:t", "range:t,rr:u"),
		"sync "+member+" "+id+"/=x"+pick("", "y"),
		"sync "+member+" "+id+"/=x"+pick("", "y"),
		"sync "+member,
		"heartbeat "+member,
		"leave "+g+" "+id,
		"leave "+g+" /"+pick("i1", "i2"),
		"commit "+member+" "+pick("t", "u")+"/"+pick("0", "1")+"="+pick("1", "2", "3"),
		"commit "+g+" "+pick("t", "u")+"/"+pick("0", "1")+"="+pick("1", "2", "3"),
		"commit "+g+" meta=5000 t/0=1",
		"fetch "+g, "describe "+g, "list",
		"offset-delete "+g+" "+pick("t", "u")+"/"+pick("0", "1"),
		"delete "+g,
		"topic-gone u", "topics-deleted u", "topic-again u",
		"advance "+pick("0s", "1s", "5s", "20s", "70s", "2h"),
		"hold", "release", "release",
		map[bool]string{true: "lose " + pick("min-isr", "storage"), false: "release"}[lossy],
	)
	if strings.HasPrefix(cmd, "hold") && w.hold {
		cmd = "release"
	}
	w.printf("%s", cmd)
	w.command(strings.Fields(cmd))
}

// quiesce lets everything come to its end: nothing in flight, no session left.
func (w *workbench) quiesce() {
	w.printf("quiesce")
	w.command([]string{"release"})
	w.advance(3 * time.Hour)
	w.command([]string{"release"})
	for p, name := range w.callers {
		w.t.Errorf("%s (%p) was never answered", name, p)
	}
}

func compareReplay(t *testing.T, w *workbench, lossy bool) {
	t.Helper()
	fresh := w.replayed()
	if got, want := showOffsets(fresh), showOffsets(w.m); got != want {
		t.Errorf("offsets after replay:\n%s\nbefore:\n%s", got, want)
	}
	if got, want := sortedKeys(fresh.groups), sortedKeys(w.m.groups); !slices.Equal(got, want) {
		t.Errorf("groups after replay %v, before %v", got, want)
	}
	if lossy {
		return // a group whose last record was lost is what the record before it says
	}
	for id, g := range w.m.groups {
		if g.state != stateEmpty && g.state != stateStable {
			t.Errorf("group %s is %s at the end", id, g.state)
			continue
		}
		if got, want := showGroup(fresh.groups[id]), showGroup(g); got != want {
			t.Errorf("group %s after replay:\n%s\nbefore:\n%s", id, got, want)
		}
	}
}

func showOffsets(m *machine) string {
	var b strings.Builder
	for _, g := range sortedKeys(m.offsets) {
		for _, topic := range sortedKeys(m.offsets[g]) {
			for _, p := range sortedKeys(m.offsets[g][topic]) {
				c := m.offsets[g][topic][p]
				fmt.Fprintf(&b, "%s/%s/%d=%d at %d id %s\n", g, topic, p, c.offset, c.commitMs, c.topicID)
			}
		}
	}
	return b.String()
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// TestEachAppendLost runs one life of two groups, losing the n-th append for every n: nobody hangs, and what is there
// afterwards is what the log has.
func TestEachAppendLost(t *testing.T) {
	life := []string{
		"config delay=0s", "commit g=simple t/0=1", "join as=A v=3 client=a", "advance 0s", "sync id=a-1 a-1/=x",
		"commit id=a-1 gen=1 t/0=5 t/1=6", "join inst=i1 v=9", "join id=a-1", "sync id=a-1 gen=2 a-1/=x", "join inst=i1 v=9",
		"leave a-1", "leave /i1", "offset-delete t/0", "delete g=simple", "topic-gone t", "topics-deleted t", "delete", "advance 2h",
	}
	for _, err := range []error{kerr.NotEnoughReplicas, kerr.KafkaStorageError, kerr.MessageTooLarge, errors.New("odd")} {
		appends := 1
		for n := 1; n <= appends; n++ {
			w := newWorkbench(t)
			w.loseAt, w.loseErr = n, err
			for _, cmd := range life {
				w.printf("%s", cmd)
				w.command(strings.Fields(cmd))
			}
			w.quiesce()
			compareReplay(t, w, true)
			if t.Failed() {
				t.Fatalf("append %d lost with %v:\n%s", n, err, w.trace.String())
			}
			appends = max(appends, w.appends)
		}
		if appends < 10 {
			t.Errorf("only %d appends", appends)
		}
	}
}
