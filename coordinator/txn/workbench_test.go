package txn

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/varvelog/varve/coordinator/runtime"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/record"
	"go.opentelemetry.io/otel/metric/noop"
)

// workbench drives a machine by hand: its clock, its log, the fate of its appends and its slow work are the test's. It writes a
// trace.
type workbench struct {
	t     testing.TB
	cfg   Config
	opts  Options
	m     *machine
	now   time.Time
	trace strings.Builder

	timers []*benchTimer
	seq    int

	hold    bool
	pending []*runtime.Effects // steps whose records, or whose answers, wait for the log
	log     []record.Record    // committed

	appends int // so far, each settling together what was pending
	loseAt  int // this one is lost, with loseErr
	loseErr error

	callers map[*runtime.Promise]*caller // who has no answer yet
	calls   int
	last    any // the last answer, nil where the log lost it

	nextID  base.ProducerID
	noIDs   bool           // there is no producer id to be had
	sending []*transaction // markers to be written
	asked   bool           // for a spare producer id
	sent    map[string]bool
}

type caller struct {
	name string
	step func(fx *runtime.Effects, fresh base.ProducerID, p *runtime.Promise)
}

type benchTimer struct {
	key  runtime.TimerKey
	at   time.Time
	seq  int
	fire func(*runtime.Effects)
}

func newWorkbench(t testing.TB) *workbench {
	w := &workbench{t: t, cfg: DefaultConfig(), now: time.UnixMilli(1_000_000_000_000), nextID: 100,
		callers: map[*runtime.Promise]*caller{}, sent: map[string]bool{}}
	w.opts = Options{Config: func() Config { return w.cfg }}
	w.opts.EnsureDefaults()
	w.m = w.newMachine()
	w.step(w.m.Loaded)
	return w
}

func (w *workbench) newMachine() *machine {
	return newMachine(&w.opts, newInstruments(noop.NewMeterProvider().Meter("")), 0, 7, w)
}

// markers implements slowWork.
func (w *workbench) markers(m *machine, t *transaction) {
	if m != w.m {
		return // a reload is under way: the machine before it has lost its courier
	}
	w.printf("  markers of %s: %s", t.id, showMarker(t))
	if t.version >= version2 { // each end has an epoch of its own, and one outcome
		key := fmt.Sprintf("%s %d/%d", t.id, t.producerID, t.epoch)
		if commit, again := w.sent[key]; again && commit != (t.state == statePrepareCommit) {
			w.t.Errorf("%s is both committed and aborted", key)
		}
		w.sent[key] = t.state == statePrepareCommit
	}
	w.sending = append(w.sending, t)
}

// spareID implements slowWork.
func (w *workbench) spareID(m *machine) {
	w.printf("  asks for a producer id")
	w.asked = m == w.m
}

// written ends the writing of the markers of a transactional id; with "" of all.
func (w *workbench) written(id string) {
	for {
		i := slices.IndexFunc(w.sending, func(t *transaction) bool { return id == "" || t.id == id })
		if i < 0 {
			return
		}
		t := w.sending[i]
		w.sending = slices.Delete(w.sending, i, i+1)
		w.step(func(fx *runtime.Effects) { w.m.complete(fx, t) })
	}
}

// giveID answers a machine that asked for a producer id.
func (w *workbench) giveID() {
	if w.asked {
		w.asked = false
		w.step(func(fx *runtime.Effects) { w.m.gotSpareID(fx, w.takeID()) })
	}
}

func (w *workbench) takeID() base.ProducerID {
	if w.noIDs {
		return base.NoProducerID
	}
	w.nextID++
	return w.nextID
}

func (w *workbench) printf(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

// call takes the step of a request, as callWithID does.
func (w *workbench) call(name string, step func(fx *runtime.Effects, fresh base.ProducerID, p *runtime.Promise)) {
	p := runtime.NewPromise()
	if w.calls++; name == "" {
		name = fmt.Sprint("call", w.calls)
	}
	w.callers[p] = &caller{name, step}
	w.last = nil
	w.step(func(fx *runtime.Effects) { step(fx, base.NoProducerID, p) })
}

// step runs a step and settles it, unless the log is held.
func (w *workbench) step(f func(fx *runtime.Effects)) {
	fx := &runtime.Effects{Now: w.now}
	f(fx)
	for _, r := range fx.Records() {
		w.printf("  append %s", showRecord(r))
	}
	w.answers(fx.Immediate())
	for _, op := range fx.Timers() {
		w.setTimer(op)
	}
	if len(fx.Records()) == 0 && len(w.pending) == 0 {
		w.answers(fx.Parked())
		if fx.Settles() {
			w.step(func(next *runtime.Effects) { fx.Settle(next, nil) })
		}
		return
	}
	w.pending = append(w.pending, fx)
	if !w.hold {
		w.settle(nil)
	}
}

func (w *workbench) answers(as []runtime.Answer) {
	for _, a := range as {
		c := w.callers[a.Promise]
		if c == nil {
			w.t.Fatalf("a caller is answered twice: %s", showAnswer(a.Value))
		}
		delete(w.callers, a.Promise)
		if _, need := a.Value.(needProducerID); need {
			if w.noIDs {
				w.printf("  %s <- no producer id", c.name)
				continue
			}
			p := runtime.NewPromise()
			w.callers[p] = c
			w.step(func(fx *runtime.Effects) { c.step(fx, w.takeID(), p) })
			continue
		}
		w.last = a.Value
		w.printf("  %s <- %s", c.name, showAnswer(a.Value))
	}
}

// settle commits or loses everything that waits, as a shard does.
func (w *workbench) settle(err error) {
	all := w.pending
	w.pending = nil
	if slices.ContainsFunc(all, func(fx *runtime.Effects) bool { return len(fx.Records()) > 0 }) {
		if w.appends++; w.appends == w.loseAt {
			err = w.loseErr
		}
	}
	if err != nil {
		for _, fx := range slices.Backward(all) {
			fx.Undo()
		}
	}
	for _, fx := range all {
		if err == nil {
			w.log = append(w.log, fx.Records()...)
		}
		if fx.Settles() {
			w.step(func(next *runtime.Effects) { fx.Settle(next, err) })
		}
		if err == nil {
			w.answers(fx.Parked())
			continue
		}
		for _, a := range fx.Parked() {
			w.printf("  %s <- lost: %v", w.callers[a.Promise].name, err)
			delete(w.callers, a.Promise)
		}
	}
}

func (w *workbench) setTimer(op runtime.TimerOp) {
	w.timers = slices.DeleteFunc(w.timers, func(t *benchTimer) bool { return t.key == op.Key })
	if op.Fire == nil {
		return
	}
	w.seq++
	w.timers = append(w.timers, &benchTimer{op.Key, w.now.Add(op.After), w.seq, op.Fire})
}

// advance moves the clock and fires what is due, in order.
func (w *workbench) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		slices.SortFunc(w.timers, func(a, b *benchTimer) int {
			return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.seq, b.seq))
		})
		if len(w.timers) == 0 || w.timers[0].at.After(end) {
			break
		}
		t := w.timers[0]
		w.timers = w.timers[1:]
		w.now = t.at
		if t.key.Group != "" {
			w.printf("  timer %s/%s", t.key.Kind, t.key.Group)
		}
		w.step(t.fire)
	}
	w.now = end
}

// reload replays the log into a new machine, as a new leader does.
func (w *workbench) reload() {
	w.timers, w.pending, w.sending, w.asked = nil, nil, nil, false
	w.m = w.replayed()
	for p, c := range w.callers {
		w.printf("  %s <- not coordinator", c.name)
		delete(w.callers, p)
	}
	w.step(w.m.Loaded)
}

func (w *workbench) replayed() *machine {
	m := w.newMachine()
	for i, r := range w.log {
		r.Offset = base.Offset(i)
		if err := m.replayRecord(r); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

func showRecord(r record.Record) string {
	id, _, err := parseKey(r.Key)
	if err != nil {
		return err.Error()
	}
	if r.Value == nil {
		return id + " tombstone"
	}
	t, err := parseValue(id, r.Value)
	if err != nil {
		return err.Error()
	}
	return id + " " + showTxn(t)
}

// showTxn is what is durable of a transaction.
func showTxn(t *transaction) string {
	s := fmt.Sprintf("%s producer=%d/%d", t.state, t.producerID, t.epoch)
	if t.previousID != t.producerID {
		s += fmt.Sprintf(" previous=%d", t.previousID)
	}
	if t.nextID != base.NoProducerID {
		s += fmt.Sprintf(" next=%d", t.nextID)
	}
	if t.version != 0 {
		s += fmt.Sprintf(" v%d", t.version)
	}
	return s + showPartitions(t)
}

func showPartitions(t *transaction) (s string) {
	for _, tp := range t.partitions {
		s += fmt.Sprintf(" %s/%d", tp.Topic, tp.Partition)
	}
	return s
}

func showMarker(t *transaction) string {
	result := "abort"
	if t.state == statePrepareCommit {
		result = "commit"
	}
	return fmt.Sprintf("%s %d/%d%s", result, t.producerID, t.epoch, showPartitions(t))
}

func showCode(code int16) string {
	if code == 0 {
		return "ok"
	}
	if e := kerr.TypedErrorForCode(code); e != nil {
		return e.Message
	}
	return fmt.Sprint(code)
}

func showProducer(id int64, epoch int16) string {
	if id == -1 {
		return ""
	}
	return fmt.Sprintf(" %d/%d", id, epoch)
}

func showAnswer(v any) string {
	switch r := v.(type) {
	case *kmsg.InitProducerIDResponse:
		return "init " + showCode(r.ErrorCode) + showProducer(r.ProducerID, r.ProducerEpoch)
	case *kmsg.EndTxnResponse:
		return "end " + showCode(r.ErrorCode) + showProducer(r.ProducerID, r.ProducerEpoch)
	case int16:
		return "add " + showCode(r)
	case []int16:
		s := "verify"
		for _, code := range r {
			s += " " + showCode(code)
		}
		return s
	case *kmsg.DescribeTransactionsResponseTransactionState:
		s := fmt.Sprintf("describe %s %s", r.TransactionalID, showCode(r.ErrorCode))
		if r.ErrorCode == 0 {
			s += fmt.Sprintf(" %s %d/%d timeout=%d start=%d", r.State, r.ProducerID, r.ProducerEpoch, r.TimeoutMillis, r.StartTimestamp)
		}
		for _, t := range r.Topics {
			s += fmt.Sprintf(" %s%v", t.Topic, t.Partitions)
		}
		return s
	case []kmsg.ListTransactionsResponseTransactionState:
		s := "list"
		for _, t := range r {
			s += fmt.Sprintf(" %s:%d:%s", t.TransactionalID, t.ProducerID, t.TransactionState)
		}
		return s
	}
	return fmt.Sprintf("%T", v)
}
