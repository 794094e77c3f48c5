package txn

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// model is what a transactional id should be, told by the tables of KIP-98, 360 and 890 and not by the code: states by name,
// epochs as plain numbers.
type model struct {
	state          string // "", Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort
	pid, prev      int64
	next           int64 // producer id after Complete, 0 for none
	epoch, retried int
	parts          map[string]bool
}

// answer is what a request should be answered: a code and, for Init and End, a producer.
type answer struct {
	code  int16
	pid   int64
	epoch int
}

func refuse(e *kerr.Error) answer { return answer{e.Code, -1, -1} }

func (m model) prepare() bool  { return strings.HasPrefix(m.state, "Prepare") }
func (m model) complete() bool { return strings.HasPrefix(m.state, "Complete") }

// to is a transition: the producer id before it is remembered.
func (m model) to(state string) model {
	m.state, m.prev = state, m.pid
	return m
}

// init is InitProducerId; pid -1 takes the id over. fresh is the next unused producer id.
func (m model) init(pid int64, epoch int, fresh int64) (model, answer) {
	switch {
	case m.state == "":
		n := model{state: "Empty", pid: fresh, prev: fresh, retried: -1}
		return n, answer{0, n.pid, 0}
	case m.prepare():
		return m, refuse(kerr.ConcurrentTransactions)
	case pid != -1 && pid != m.pid && (pid != m.prev || epoch < 32766):
		return m, refuse(kerr.ProducerFenced)
	case m.state == "Ongoing":
		n, _ := m.end(false, true, fresh)
		return n, refuse(kerr.ConcurrentTransactions)
	case pid != -1 && epoch != m.epoch && epoch != m.retried:
		return m, refuse(kerr.ProducerFenced)
	}
	n := m.to("Empty")
	n.parts = nil
	if pid == -1 || epoch == m.epoch {
		n.retried = -1
		if pid != -1 {
			n.retried = m.epoch
		}
		if n.epoch = m.epoch + 1; m.epoch >= 32766 {
			n.pid, n.epoch = fresh, 0
		}
	}
	return n, answer{0, n.pid, n.epoch}
}

func (m model) add(pid int64, epoch int, part string) (model, answer) {
	switch {
	case m.prepare():
		return m, refuse(kerr.ConcurrentTransactions)
	case m.state == "" || pid != m.pid:
		return m, refuse(kerr.InvalidProducerIDMapping)
	case epoch != m.epoch:
		return m, refuse(kerr.ProducerFenced)
	case m.state == "Ongoing" && m.parts[part]:
		return m, answer{}
	}
	n := m.to("Ongoing")
	n.parts = maps.Clone(m.parts)
	if n.parts == nil {
		n.parts = map[string]bool{}
	}
	n.parts[part] = true
	return n, answer{}
}

// end is the transition to Prepare*; bump is transaction version 2.
func (m model) end(commit, bump bool, fresh int64) (model, answer) {
	n := m.to("PrepareAbort")
	if commit {
		n.state = "PrepareCommit"
	}
	if !bump {
		return n, answer{0, -1, -1}
	}
	if m.epoch >= 32766 {
		n.next = fresh
	}
	n.retried, n.epoch = m.epoch, m.epoch+1
	done := n.done()
	return n, answer{0, done.pid, done.epoch}
}

func (m model) done() model {
	n := m.to(strings.Replace(m.state, "Prepare", "Complete", 1))
	if n.next != 0 {
		n.pid, n.epoch, n.next = n.next, 0, 0
	}
	n.parts = nil
	return n
}

func (m model) endOne(pid int64, epoch int, commit bool) (model, answer) {
	switch same := m.state == "Complete"+outcome(commit); {
	case m.state == "" || pid != m.pid:
		return m, refuse(kerr.InvalidProducerIDMapping)
	case epoch != m.epoch:
		return m, refuse(kerr.ProducerFenced)
	case m.prepare():
		return m, refuse(kerr.ConcurrentTransactions)
	case m.state == "Ongoing":
		return m.end(commit, false, 0)
	case same:
		return m, answer{0, -1, -1}
	}
	return m, refuse(kerr.InvalidTxnState)
}

func outcome(commit bool) string {
	if commit {
		return "Commit"
	}
	return "Abort"
}

func (m model) endTwo(pid int64, epoch int, commit bool, fresh int64) (model, answer) {
	overflow := pid == m.prev && pid != m.pid && epoch == 32766 && m.epoch == 0
	switch retry := overflow || (pid == m.pid && epoch == m.epoch-1); {
	case m.state == "":
		return m, refuse(kerr.InvalidProducerIDMapping)
	case m.prepare():
		return m, refuse(kerr.ConcurrentTransactions)
	case pid != m.pid && !overflow:
		return m, refuse(kerr.InvalidProducerIDMapping)
	case retry && !m.complete(), !retry && epoch != m.epoch:
		return m, refuse(kerr.ProducerFenced)
	case retry && m.state == "Complete"+outcome(commit):
		return m, answer{0, m.pid, m.epoch}
	case retry, commit && m.state != "Ongoing":
		return m, refuse(kerr.InvalidTxnState)
	}
	return m.end(commit, true, fresh)
}

// String is what a DescribeTransactions tells.
func (m model) String() string {
	return fmt.Sprint(m.state, m.pid, m.epoch, slices.Sorted(maps.Keys(m.parts)))
}

func showState(t *transaction) string {
	if t == nil {
		return model{}.String()
	}
	m := model{state: t.state.String(), pid: int64(t.producerID), epoch: int(t.epoch), parts: map[string]bool{}}
	for _, tp := range t.partitions {
		m.parts[fmt.Sprintf("%s/%d", tp.Topic, tp.Partition)] = true
	}
	return m.String()
}

func (w *workbench) answered() (a answer) {
	switch r := w.last.(type) {
	case *kmsg.InitProducerIDResponse:
		return answer{r.ErrorCode, r.ProducerID, int(r.ProducerEpoch)}
	case *kmsg.EndTxnResponse:
		return answer{r.ErrorCode, r.ProducerID, int(r.ProducerEpoch)}
	case int16:
		if a.code = r; r != 0 {
			a.pid, a.epoch = -1, -1
		}
	}
	return a
}

// TestModel: random requests, of producers that are current, old or wrong, with lost appends and new leaders in between, are answered as
// the model says, and the state is the model's after each.
func TestModel(t *testing.T) {
	for _, s := range seeds(t, 40) {
		t.Run(fmt.Sprint("seed=", s), func(t *testing.T) {
			w, r, models := newWorkbench(t), rand.New(rand.NewPCG(s, 11)), map[string]model{}
			w.loseErr = kerr.NotEnoughReplicas
			defer w.traceOnFailure(s)
			for i := 0; i < 400 && !t.Failed(); i++ {
				w.modelStep(r, models)
			}
		})
	}
}

func (w *workbench) modelStep(r *rand.Rand, models map[string]model) {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	id := pick("x", "y")
	m, fresh := models[id], int64(w.nextID)+1
	pid, epoch := m.pid, m.epoch-r.IntN(2)
	switch r.IntN(8) {
	case 0:
		pid, epoch = m.prev, 32766
	case 1:
		pid, epoch = m.pid+int64(r.IntN(2)), min(m.epoch+r.IntN(2), 32767)
	case 2, 3, 4:
		epoch = m.epoch
	}
	if pid <= 0 || epoch < 0 {
		pid, epoch = 7, 0
	}
	part, commit := pick("t/0", "t/1", "u/0"), r.IntN(3) > 0
	var n model
	var want answer
	cmd := ""
	switch op := pick("init", "recover", "add", "add", "one", "two", "two", "written", "written", "reload", "time", "seed"); op {
	case "init":
		cmd = "init id=" + id
		n, want = m.init(-1, -1, fresh)
	case "recover":
		cmd = fmt.Sprintf("init id=%s p=%d/%d", id, pid, epoch)
		n, want = m.init(pid, epoch, fresh)
	case "add":
		cmd = fmt.Sprintf("add id=%s p=%d/%d %s", id, pid, epoch, part)
		n, want = m.add(pid, epoch, part)
	case "one":
		cmd = fmt.Sprintf("%s id=%s v=4 p=%d/%d", strings.ToLower(outcome(commit)), id, pid, epoch)
		n, want = m.endOne(pid, epoch, commit)
	case "two":
		cmd = fmt.Sprintf("%s id=%s p=%d/%d", strings.ToLower(outcome(commit)), id, pid, epoch)
		n, want = m.endTwo(pid, epoch, commit, fresh)
	default:
		w.modelEvent(op, id, models)
		return
	}
	if cmd != "" && r.IntN(10) == 0 {
		w.loseAt = w.appends + 1
	}
	before := w.appends
	w.printf("%s", cmd)
	w.command(strings.Fields(cmd))
	switch lost := w.loseAt == w.appends && w.appends > before; {
	case lost && w.last != nil:
		w.t.Errorf("%s was answered although it was lost", cmd)
	case lost:
	case w.answered() != want || w.last == nil:
		w.t.Errorf("%s: got %+v, want %+v", cmd, w.answered(), want)
	default:
		models[id] = n
	}
	w.loseAt = 0
	w.compareModel(cmd, models)
}

// modelEvent is what is no request.
func (w *workbench) modelEvent(op, id string, models map[string]model) {
	w.printf("%s %s", op, id)
	switch op {
	case "written":
		w.written(id)
		if m := models[id]; m.prepare() {
			models[id] = m.done()
		}
	case "reload":
		w.reload()
		for id, m := range models {
			if m.retried = -1; m.state != "" {
				models[id] = m
			}
		}
	case "time":
		w.advance(2 * time.Minute)
		for range 3 {
			w.giveID()
			w.advance(time.Second)
		}
		for id, m := range models {
			if m.state == "Ongoing" {
				models[id], _ = m.end(false, true, int64(w.m.txns[id].nextID))
			}
		}
	case "seed": // close to where the epochs end
		if m := models[id]; m.state == "" || m.state == "Empty" {
			pid := 10_000 + int64(w.appends)
			w.command([]string{"seed", "id=" + id, fmt.Sprintf("p=%d/32764", pid)})
			models[id] = model{state: "Empty", pid: pid, prev: 0, epoch: 32764, retried: -1}
		}
	}
	w.compareModel(op, models)
}

func (w *workbench) compareModel(what string, models map[string]model) {
	for id, m := range models {
		if got := showState(w.m.txns[id]); got != m.String() {
			w.t.Errorf("%s: %s is %s, want %s", what, id, got, m)
		}
		if sending := slices.ContainsFunc(w.sending, func(t *transaction) bool { return t.id == id }); sending != m.prepare() {
			w.t.Errorf("%s: %s is %s, markers under way: %v", what, id, m, sending)
		}
	}
	if got, want := showAll(w.replayed()), showAll(w.m); got != want {
		w.t.Errorf("%s: after replay\n%sbefore\n%s", what, got, want)
	}
}

func showAll(m *machine) string {
	var b strings.Builder
	for _, t := range m.sorted() {
		fmt.Fprintf(&b, "%s %s start %d update %d timeout %d\n", t.id, showTxn(t), t.startMs, t.updateMs, t.timeoutMs)
	}
	return b.String()
}
