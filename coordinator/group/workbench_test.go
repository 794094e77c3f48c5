package group

import (
	"cmp"
	"fmt"
	"log/slog"
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

// workbench drives a machine by hand: its clock, its log and the fate of its appends are the test's. It writes a trace.
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
	ids     int
	topics  map[string]base.TopicID

	appends int // so far, each settling together what was pending
	loseAt  int // this one is lost, with loseErr
	loseErr error

	callers map[*runtime.Promise]string // who has no answer yet
	calls   int
}

type benchTimer struct {
	key  runtime.TimerKey
	at   time.Time
	seq  int
	fire func(*runtime.Effects)
}

func newWorkbench(t testing.TB) *workbench {
	w := &workbench{t: t, cfg: DefaultConfig(), now: time.UnixMilli(1_000_000_000_000), callers: map[*runtime.Promise]string{},
		topics: map[string]base.TopicID{"t": {1}, "u": {2}, "v": {3}, "w": {4}, "x": {5}}}
	w.opts = Options{
		Config:          func() Config { return w.cfg },
		NewMemberSuffix: func() string { w.ids++; return fmt.Sprint(w.ids) },
		Logger:          slog.New(slog.DiscardHandler),
		TopicID:         func(topic string) base.TopicID { return w.topics[topic] },
		TopicName:       func(base.TopicID) (string, bool) { return "", false },
	}
	w.opts.EnsureDefaults()
	w.m = w.newMachine()
	w.step(w.m.Loaded)
	return w
}

func (w *workbench) newMachine() *machine {
	return newMachine(&w.opts, newInstruments(noop.NewMeterProvider().Meter("")), 0)
}

func (w *workbench) printf(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

// promise makes a caller of the given name.
func (w *workbench) promise(name string) *runtime.Promise {
	p := runtime.NewPromise()
	w.calls++
	if name == "" {
		name = fmt.Sprint("call", w.calls)
	}
	w.callers[p] = name
	return p
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
		name, ok := w.callers[a.Promise]
		if !ok {
			w.t.Fatalf("a caller is answered twice: %s", showAnswer(a.Value))
		}
		delete(w.callers, a.Promise)
		w.printf("  %s <- %s", name, showAnswer(a.Value))
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
		if err != nil {
			for _, a := range fx.Parked() {
				w.printf("  %s <- lost: %v", w.callers[a.Promise], err)
				delete(w.callers, a.Promise)
			}
			continue
		}
		w.answers(fx.Parked())
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
		if t.key.Kind != "expiry" {
			w.printf("  timer %s", showKey(t.key))
		}
		w.step(t.fire)
	}
	w.now = end
}

// reload replays the log into a new machine, as a new leader does.
func (w *workbench) reload() {
	w.m = w.replayed()
	w.timers, w.pending = nil, nil
	for p, name := range w.callers {
		w.printf("  %s <- not coordinator", name)
		delete(w.callers, p)
	}
	w.step(w.m.Loaded)
}

func (w *workbench) replayed() *machine {
	m := w.newMachine()
	for i, r := range w.log {
		r.Offset = base.Offset(i)
		if err := m.replayRecord(base.NoProducerID, r); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

func showKey(k runtime.TimerKey) string {
	return strings.TrimRight(strings.Join([]string{k.Kind, k.Group, k.Member}, "/"), "/")
}

func showRecord(r record.Record) string {
	k, err := parseKey(r.Key)
	if err != nil {
		return err.Error()
	}
	if k.kind == keyOffset {
		name := fmt.Sprintf("offset %s/%s/%d", k.group, k.topic, k.partition)
		if r.Value == nil {
			return name + " tombstone"
		}
		c, err := parseOffset(r.Value)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%s = %d%s", name, c.offset, showMeta(c))
	}
	if r.Value == nil {
		return fmt.Sprintf("group %s tombstone", k.group)
	}
	g, err := parseGroup(string(k.group), r.Value)
	if err != nil {
		return err.Error()
	}
	return "group " + g.id + " " + showGroup(g)
}

func showMeta(c committed) string {
	var s string
	if c.metadata != "" {
		s += fmt.Sprintf(" %.20q", c.metadata)
	}
	if c.expireMs != noTimestamp {
		s += fmt.Sprintf(" expires+%d", c.expireMs-c.commitMs)
	}
	return s
}

// showGroup is what is durable of a group.
func showGroup(g *classicGroup) string {
	s := fmt.Sprintf("generation=%d type=%q", g.generation, g.protocolType)
	if g.protocol != nil {
		s += " protocol=" + *g.protocol
	}
	if g.leader != "" {
		s += " leader=" + g.leader
	}
	for _, m := range g.inOrder() {
		s += fmt.Sprintf(" [%s", m.id)
		if m.instanceID != nil {
			s += " instance=" + *m.instanceID
		}
		s += fmt.Sprintf(" %q]", m.assignment)
	}
	return s
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

func deref(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

func showAnswer(v any) string {
	switch r := v.(type) {
	case *kmsg.JoinGroupResponse:
		s := fmt.Sprintf("join %s member=%s", showCode(r.ErrorCode), r.MemberID)
		if r.ErrorCode == 0 {
			s += fmt.Sprintf(" generation=%d protocol=%s leader=%s", r.Generation, deref(r.Protocol), r.LeaderID)
		}
		if r.SkipAssignment {
			s += " skip"
		}
		for _, m := range r.Members {
			s += " [" + m.MemberID + "]"
		}
		return s
	case *kmsg.SyncGroupResponse:
		return fmt.Sprintf("sync %s protocol=%s %q", showCode(r.ErrorCode), deref(r.Protocol), r.MemberAssignment)
	case *kmsg.HeartbeatResponse:
		return "heartbeat " + showCode(r.ErrorCode)
	case *kmsg.LeaveGroupResponse:
		s := "leave " + showCode(r.ErrorCode)
		for _, m := range r.Members {
			s += fmt.Sprintf(" [%s %s]", m.MemberID, showCode(m.ErrorCode))
		}
		return s
	case *kmsg.OffsetCommitResponse:
		s := "commit"
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				s += fmt.Sprintf(" %s/%d %s", t.Topic, p.Partition, showCode(p.ErrorCode))
			}
		}
		return s
	case *kmsg.OffsetFetchResponseGroup:
		s := "fetch " + showCode(r.ErrorCode)
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				s += fmt.Sprintf(" %s/%d=%d", t.Topic, p.Partition, p.Offset)
				if p.ErrorCode != 0 {
					s += " " + showCode(p.ErrorCode)
				}
			}
		}
		return s
	case *kmsg.OffsetDeleteResponse:
		s := "offset-delete " + showCode(r.ErrorCode)
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				s += fmt.Sprintf(" %s/%d %s", t.Topic, p.Partition, showCode(p.ErrorCode))
			}
		}
		return s
	case *kmsg.DeleteGroupsResponseGroup:
		return fmt.Sprintf("delete %s %s", r.Group, showCode(r.ErrorCode))
	case *kmsg.DescribeGroupsResponseGroup:
		s := fmt.Sprintf("describe %s %s state=%s type=%q protocol=%q", r.Group, showCode(r.ErrorCode), r.State, r.ProtocolType, r.Protocol)
		for _, m := range r.Members {
			s += fmt.Sprintf(" [%s %s%s metadata=%d %q]", m.MemberID, m.ClientID, m.ClientHost, len(m.ProtocolMetadata), m.MemberAssignment)
		}
		return s
	case []kmsg.ListGroupsResponseGroup:
		s := "list"
		for _, g := range r {
			s += fmt.Sprintf(" %s:%s:%s:%s", g.Group, g.ProtocolType, g.GroupState, g.GroupType)
		}
		return s
	}
	return fmt.Sprintf("%T", v)
}
