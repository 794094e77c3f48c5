package replica

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seeds    = flag.Int("seeds", 3000, "how many seeds TestModel runs")
	oneSeed  = flag.Uint64("seed", 0, "the one seed that TestModel runs, with its trace")
	stepsPer = flag.Int("steps", 400, "steps per seed")
)

// TestModel runs brokers over one partition against a reference controller: messages are delayed, lost and overtaken, brokers
// crash and lose what is not synced, come back, lose their disks, are fenced while they live. After every step the invariants
// hold (cluster.check), and when the faults end the replicas converge.
func TestModel(t *testing.T) {
	if *oneSeed != 0 {
		runSeed(t, *oneSeed, func(line string) { t.Log(line) })
		return
	}
	var s modelStats
	for seed := range uint64(*seeds) {
		s.add(runSeed(t, seed+1, nil))
		if t.Failed() {
			return
		}
	}
	t.Logf("%d seeds: %+v", *seeds, s)
	// A workload in which nothing happens proves nothing.
	if *seeds >= 1000 && (s.Committed < *seeds || s.Elections < *seeds || s.Truncations < *seeds/10 || s.Expansions < *seeds/10) {
		t.Errorf("too little happened: %+v", s)
	}
}

type modelStats struct{ Committed, Acked, Elections, Truncations, Expansions int }

func (s *modelStats) add(o modelStats) {
	s.Committed += o.Committed
	s.Acked += o.Acked
	s.Elections += o.Elections
	s.Truncations += o.Truncations
	s.Expansions += o.Expansions
}

// walk is one seed's run.
type walk struct {
	*cluster
	r      *rand.Rand
	faults int // how often something breaks, per cent of the steps
	loss   int // of messages, per cent
	stats  modelStats
}

func runSeed(t *testing.T, seed uint64, trace func(string)) modelStats {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	n := 3 + r.IntN(3)*r.IntN(2)
	w := &walk{cluster: newCluster(n, 1+r.IntN(3)), r: r, faults: 1 + r.IntN(12), loss: r.IntN(20)}
	if trace != nil {
		w.trace = trace
	}
	for step := range *stepsPer {
		what := w.step()
		if trace != nil {
			trace(fmt.Sprintf("%d %s\n%s", step, what, w.cluster))
		}
		if w.check() != "" {
			t.Errorf("seed %d, step %d (%s): %s\n%s", seed, step, what, w.broken, w.cluster)
			return w.stats
		}
	}
	w.stats.Committed, w.stats.Acked, w.stats.Elections = len(w.committed), int(w.ackedEnd), int(w.ctl.epoch)
	if msg := w.settle(); msg != "" {
		t.Errorf("seed %d, settling: %s\n%s", seed, msg, w.cluster)
	}
	return w.stats
}

// step does one random thing and says which.
func (w *walk) step() string {
	n := w.nodes[w.r.IntN(len(w.nodes))]
	if w.r.IntN(100) < w.faults {
		return w.fault(n)
	}
	switch k := w.r.IntN(100); {
	case k < 40 && len(w.inFlight) > 0:
		return w.message()
	case k < 60:
		return w.work(n)
	case k < 80 && n.up:
		if n.fetch() {
			return fmt.Sprintf("fetch by %d", n.id)
		}
		return w.work(n)
	case k < 90:
		if l := w.leader(); l != nil {
			return fmt.Sprintf("append at %d: %v", l.id, l.append(1+w.r.IntN(2)))
		}
	case k < 95:
		w.now = w.now.Add(time.Duration(w.r.Int64N(int64(lagMax / 3))))
		for _, n := range w.nodes {
			if n.leader != nil && w.r.IntN(2) == 0 {
				n.effects(n.leader.Tick(w.now))
			}
		}
		return "time"
	default:
		if l := w.leader(); l != nil {
			l.timeOut()
			return fmt.Sprintf("time-out of a proposal at %d", l.id)
		}
	}
	return w.work(n)
}

// leader is one that takes itself for it.
func (w *walk) leader() *node {
	for _, i := range w.r.Perm(len(w.nodes)) {
		if w.nodes[i].leader != nil {
			return w.nodes[i]
		}
	}
	return nil
}

// work is what a living broker does by itself: it syncs, and learns of newer images.
func (w *walk) work(n *node) string {
	switch {
	case !n.up:
		return "nothing"
	case len(n.ops) > 0 && w.r.IntN(2) == 0:
		count := len(n.ops)
		if n.leader != nil { // a follower's write is one batch
			count = 1 + w.r.IntN(count)
		}
		n.sync(count)
		return fmt.Sprintf("sync of %d", n.id)
	case n.seen < len(w.ctl.images)-1:
		i := n.seen + 1 + w.r.IntN(len(w.ctl.images)-1-n.seen)
		n.see(i)
		return fmt.Sprintf("image %d at %d", i, n.id)
	}
	return "nothing"
}

// message delivers, loses or repeats one.
func (w *walk) message() string {
	i := 0
	if w.r.IntN(3) == 0 {
		i = w.r.IntN(len(w.inFlight))
	}
	m := w.inFlight[i]
	if w.r.IntN(100) < w.loss || len(w.inFlight) > 50 {
		w.inFlight = slices.Delete(w.inFlight, i, i+1)
		return "lost: " + m.String()
	}
	if m.response != nil && m.response.Diverging != nil {
		w.stats.Truncations++
	}
	if m.proposal != nil && len(m.proposal.Added) > 0 {
		w.stats.Expansions++
	}
	w.deliver(i, 1+w.r.IntN(4))
	return m.String()
}

// fault breaks or mends something.
func (w *walk) fault(n *node) string {
	switch k := w.r.IntN(20); {
	case !n.up && k < 14:
		n.start()
		return fmt.Sprintf("start of %d", n.id)
	case w.ctl.fenced(n.id) && k < 14:
		if n.up || w.r.IntN(20) == 0 {
			w.ctl.unfence(n.id)
			return fmt.Sprintf("unfence %d", n.id)
		}
	case k < 7 && n.up:
		n.crash(w.r.IntN(len(n.ops) + 1))
		return fmt.Sprintf("crash of %d", n.id)
	case k < 11:
		w.ctl.fence(n.id)
		return fmt.Sprintf("fence %d", n.id)
	case k < 13:
		if slices.Contains(w.ctl.isr, n.id) && !w.ctl.fenced(n.id) {
			w.ctl.elect(n.id)
			w.ctl.write(true)
			return fmt.Sprintf("elect %d", n.id)
		}
	case k < 14 && w.mayWipe(n):
		n.wipe()
		n.start()
		return fmt.Sprintf("new disk for %d", n.id)
	case k < 15:
		w.ctl.setMin(1 + w.r.IntN(3))
		return "min.insync.replicas"
	}
	return "nothing"
}

// mayWipe: the model loses a disk only where that loses no record, as an operator would. The broker comes back at once: a leader's
// change of the ISR that is still under way could leave it as the only one in it.
func (w *walk) mayWipe(n *node) bool {
	return w.ctl.spare(n.id) && (n.up || n.wiped)
}

func (m message) String() string {
	switch {
	case m.fetch != nil:
		return fmt.Sprintf("fetch %d->%d %+v", m.from, m.to, *m.fetch)
	case m.response != nil:
		d := ""
		if m.response.Diverging != nil {
			d = fmt.Sprintf(" diverging %+v", *m.response.Diverging)
		}
		return fmt.Sprintf("response %d->%d to %+v: hw %d, %d bytes%s %s", m.from, m.to, m.response.To, m.response.HighWatermark, len(m.response.Records), d, code(m.response.Err))
	case m.proposal != nil:
		return fmt.Sprintf("proposal of %d: %v", m.from, m.proposal.ISR)
	case m.committed != nil:
		return fmt.Sprintf("committed to %d: %v", m.to, m.committed.ISR)
	}
	return fmt.Sprintf("refused to %d", m.to)
}

func (c *cluster) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s\n", c.ctl)
	for _, n := range c.nodes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	return b.String()
}
