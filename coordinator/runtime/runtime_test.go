package runtime

import (
	"context"
	"errors"
	"fmt"
	gosched "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/varvelog/varve/coordinator/memlog"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/record"
)

// list is a machine whose state is the list of values it has appended.
type list struct {
	values  []string
	settled []string
}

func (l *list) Replay(b record.Batch) error {
	return b.Each(func(r record.Record) bool { l.values = append(l.values, string(r.Value)); return true })
}

func (l *list) Loaded(*Effects) {}

// add is a request: it appends a value and answers with the state it made.
func add(v string) func(*list, *Effects, *Promise) {
	return func(l *list, fx *Effects, p *Promise) {
		old := l.values
		l.values = append(slices.Clone(old), v)
		fx.Append([]byte("k"), []byte(v))
		fx.OnUndo(func() { l.values = old })
		fx.OnSettled(func(_ *Effects, err error) { l.settled = append(l.settled, fmt.Sprint(v, " ", err == nil)) })
		fx.Reply(p, fmt.Sprint(l.values))
	}
}

func read(l *list, fx *Effects, p *Promise) { fx.Reply(p, fmt.Sprint(l.values)) }

const testTimeout = 30 * time.Second

func start(t *testing.T, o Options[*list]) *Runtime[*list] {
	t.Helper()
	o.Name, o.NewMachine = "test", func(int32) *list { return &list{} }
	r := New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	r.Lead(0, 1)
	loaded(t, r)
	return r
}

func loaded(t *testing.T, r *Runtime[*list]) {
	t.Helper()
	eventually(t, func() bool {
		_, err := r.Call(t.Context(), 0, func(_ *list, fx *Effects, p *Promise) { fx.ReplyNow(p, nil) })
		return err == nil
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition not reached")
		}
	}
}

// background runs a call and hands over what it answered.
func background(t *testing.T, r *Runtime[*list], step func(*list, *Effects, *Promise)) <-chan string {
	c := make(chan string, 1)
	go func() {
		v, err := r.Call(t.Context(), 0, step)
		c <- fmt.Sprint(v, " ", err != nil)
	}()
	return c
}

func TestAnswersLeaveAfterCommit(t *testing.T) {
	log := &memlog.Log{}
	r := start(t, Options[*list]{Log: log})
	log.Hold()
	a := background(t, r, add("a"))
	eventually(t, func() bool { return log.Held() == 1 })
	reader := background(t, r, read)
	var rest []<-chan string
	for _, v := range []string{"b", "c", "d"} {
		rest = append(rest, background(t, r, add(v)))
		want := v
		eventually(t, func() bool { // seen by later steps before it is committed
			got, _ := r.Call(t.Context(), 0, func(l *list, fx *Effects, p *Promise) { fx.ReplyNow(p, l.values[len(l.values)-1]) })
			return got == want
		})
	}
	select {
	case v := <-a:
		t.Fatalf("answered before the commit: %s", v)
	case v := <-reader:
		t.Fatalf("read answered before the commit it saw: %s", v)
	default:
	}
	log.Release()
	if got := <-a; got != "[a] false" {
		t.Errorf("a: %s", got)
	}
	<-reader
	for i, want := range []string{"[a b] false", "[a b c] false", "[a b c d] false"} {
		if got := <-rest[i]; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if n := len(log.Batches(0)); n != 2 {
		t.Errorf("%d batches for a and what gathered behind it, want 2", n)
	}
}

func TestLostAppendIsUndone(t *testing.T) {
	log := &memlog.Log{Fail: func(n int) error {
		if n == 2 || n == 5 {
			return kerr.NotEnoughReplicas
		}
		return nil
	}}
	r := start(t, Options[*list]{Log: log})
	if got := <-background(t, r, add("a")); got != "[a] false" {
		t.Fatal(got)
	}
	log.Hold()
	b := background(t, r, add("b"))
	eventually(t, func() bool { return log.Held() == 1 })
	values := func(want int) {
		eventually(t, func() bool {
			n, _ := r.Call(t.Context(), 0, func(l *list, fx *Effects, p *Promise) { fx.ReplyNow(p, len(l.values)) })
			return n == want
		})
	}
	c := background(t, r, add("c")) // gathers behind b and rests on it
	values(3)
	e := background(t, r, add("e")) // shares a batch with c
	values(4)
	log.Release()
	if got := <-b + <-c + <-e; got != "<nil> true<nil> true<nil> true" {
		t.Errorf("b, c and e: %s", got)
	}
	if got := <-background(t, r, add("d")); got != "[a d] false" {
		t.Errorf("after the undo: %s", got)
	}
	log.Hold()
	ff := background(t, r, add("f"))
	eventually(t, func() bool { return log.Held() == 1 })
	g := background(t, r, add("g"))
	values(4)
	h := background(t, r, add("h")) // lost together with g: the newer goes first
	values(5)
	log.Release()
	if got := <-ff + <-g + <-h; got != "[a d f] false<nil> true<nil> true" {
		t.Errorf("f, g and h: %s", got)
	}
	values(3)
	v, _ := r.Call(t.Context(), 0, func(l *list, fx *Effects, p *Promise) { fx.ReplyNow(p, fmt.Sprint(l.settled)) })
	if v != "[a true b false c false e false d true f true g false h false]" {
		t.Errorf("settled: %v", v)
	}
}

func TestNotLeaderReloads(t *testing.T) {
	log := &memlog.Log{Fail: func(n int) error {
		if n == 2 {
			return kerr.NotLeaderForPartition
		}
		return nil
	}}
	r := start(t, Options[*list]{Log: log})
	<-background(t, r, add("a"))
	// A caller that no record holds: it waits in the machine.
	parked := make(chan error, 1)
	entered := make(chan struct{})
	go func() {
		_, err := r.Call(t.Context(), 0, func(*list, *Effects, *Promise) { close(entered) })
		parked <- err
	}()
	<-entered
	if _, err := r.Call(t.Context(), 0, add("b")); err == nil {
		t.Fatal("b was committed")
	}
	if err := <-parked; !errors.Is(err, kerr.NotCoordinator) {
		t.Errorf("parked: %v", err)
	}
	loaded(t, r)
	if got := <-background(t, r, read); got != "[a] false" {
		t.Errorf("reloaded: %s", got)
	}
}

func TestLeadership(t *testing.T) {
	log := &memlog.Log{}
	r := start(t, Options[*list]{Log: log})
	if _, err := r.Call(t.Context(), 1, read); !errors.Is(err, kerr.NotCoordinator) {
		t.Errorf("never led: %v", err)
	}
	r.Lead(0, 1)
	if _, err := r.Call(t.Context(), 0, read); err != nil {
		t.Errorf("the same epoch again: %v", err)
	}
	log.Hold()
	first := background(t, r, add("a"))
	eventually(t, func() bool { return log.Held() == 1 })
	// Two more epochs while an append of the first is in flight: neither may load before it is settled.
	r.Lead(0, 2)
	r.Lead(0, 3)
	if got := <-first; got != "<nil> true" {
		t.Errorf("parked over an epoch: %s", got)
	}
	for range 2000 {
		if _, err := r.Call(t.Context(), 0, read); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			t.Fatalf("loading: %v", err)
		}
		gosched.Gosched()
	}
	log.Release()
	loaded(t, r)
	if got := <-background(t, r, read); got != "[a] false" {
		t.Errorf("loaded: %s", got)
	}
	r.Resign(0)
	if _, err := r.Call(t.Context(), 0, read); !errors.Is(err, kerr.NotCoordinator) {
		t.Errorf("resigned: %v", err)
	}
	if p := r.Partitions(); len(p) != 0 {
		t.Errorf("partitions %v", p)
	}
}

// flaky is a log whose first replays fail.
type flaky struct {
	memlog.Log
	mu    sync.Mutex
	fails int
}

func (f *flaky) Replay(ctx context.Context, p int32, emit func(record.Batch) error) error {
	f.mu.Lock()
	f.fails--
	fail := f.fails >= 0
	f.mu.Unlock()
	if fail {
		return base.MarkCorruption(errors.New("torn"))
	}
	return f.Log.Replay(ctx, p, emit)
}

// A shard that has ended waits on the map for the next leader epoch: what it knew is let go.
func TestResignedShardIsEmpty(t *testing.T) {
	r := start(t, Options[*list]{Log: &memlog.Log{}})
	r.mu.Lock()
	s := r.mu.shards[0]
	r.mu.Unlock()
	r.Resign(0)
	<-s.drained
	if s.machine != nil || s.timers != nil || s.pipe.inflight != nil || s.before != nil {
		t.Errorf("machine %v, timers %v", s.machine, s.timers)
	}
}

func TestReplayIsTriedAgain(t *testing.T) {
	c := clock.NewManual(time.Unix(1e9, 0))
	r := New(Options[*list]{Log: &flaky{fails: 2}, Clock: c, NewMachine: func(int32) *list { return &list{} }})
	defer func() { _ = r.Stop(context.Background()) }()
	r.Lead(0, 1)
	if _, err := r.Call(t.Context(), 0, read); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
		t.Fatalf("before: %v", err)
	}
	eventually(t, func() bool {
		c.Advance(time.Second)
		_, err := r.Call(t.Context(), 0, read)
		return err == nil
	})
}

func TestTimers(t *testing.T) {
	c := clock.NewManual(time.Unix(1e9, 0))
	r := start(t, Options[*list]{Log: &memlog.Log{}, Clock: c})
	var fired []string // the shard's
	set := func(name string, d time.Duration) {
		if _, err := r.Call(t.Context(), 0, func(_ *list, fx *Effects, p *Promise) {
			fx.SetTimer(TimerKey{Kind: name}, d, func(*Effects) { fired = append(fired, name) })
			fx.ReplyNow(p, nil)
		}); err != nil {
			t.Fatal(err)
		}
	}
	sofar := func() string {
		v, err := r.Call(t.Context(), 0, func(_ *list, fx *Effects, p *Promise) { fx.ReplyNow(p, fmt.Sprint(fired)) })
		if err != nil {
			t.Fatal(err)
		}
		return v.(string)
	}
	set("late", 30*time.Second)
	set("early", 10*time.Second)
	set("moved", 5*time.Second)
	set("moved", 20*time.Second)
	set("cancelled", 5*time.Second)
	_, _ = r.Call(t.Context(), 0, func(_ *list, fx *Effects, p *Promise) {
		fx.CancelTimer(TimerKey{Kind: "cancelled"})
		fx.ReplyNow(p, nil)
	})
	for _, step := range []struct {
		by   time.Duration
		want string
	}{{6 * time.Second, "[]"}, {5 * time.Second, "[early]"}, {10 * time.Second, "[early moved]"}, {time.Minute, "[early moved late]"}} {
		c.Advance(step.by)
		eventually(t, func() bool { return sofar() == step.want })
	}
}

func TestSplitAndBatchLimit(t *testing.T) {
	log := &memlog.Log{}
	r := start(t, Options[*list]{Log: log, MaxBatchBytes: 1000})
	_, err := r.Call(t.Context(), 0, func(_ *list, fx *Effects, p *Promise) {
		fx.Split()
		for range 10 {
			fx.Append([]byte("k"), make([]byte, 300))
		}
		fx.Reply(p, nil)
	})
	if err != nil || len(log.Batches(0)) != 4 { // three of 325 bytes each
		t.Errorf("split: %v, %d batches", err, len(log.Batches(0)))
	}
	_, err = r.Call(t.Context(), 0, func(_ *list, fx *Effects, p *Promise) {
		for range 10 {
			fx.Append([]byte("k"), make([]byte, 300))
		}
		fx.Reply(p, nil)
	})
	if err != nil || len(log.Batches(0)) != 5 {
		t.Errorf("atomic: %v, %d batches", err, len(log.Batches(0)))
	}
}

func TestPendingLimitStopsTheMailbox(t *testing.T) {
	log := &memlog.Log{}
	r := start(t, Options[*list]{Log: log, MaxPendingBytes: 100, MailboxRequests: 4})
	log.Hold()
	a := background(t, r, add(string(make([]byte, 200))))
	eventually(t, func() bool { return log.Held() == 1 })
	ping := background(t, r, func(_ *list, fx *Effects, p *Promise) { fx.ReplyNow(p, "pong") })
	r.mu.Lock()
	mailbox := r.mu.shards[0].mailbox
	r.mu.Unlock()
	eventually(t, func() bool { return len(mailbox) == 1 })
	b := background(t, r, add("b"))
	eventually(t, func() bool { return len(mailbox) == 2 })
	select {
	case v := <-ping:
		t.Fatalf("request taken beyond the limit: %s", v)
	default:
	}
	log.Release()
	<-a
	if got := <-ping; got != "pong false" {
		t.Errorf("ping: %s", got)
	}
	<-b
}

// TestWaitingRequestsGoBeforeTimers: a heartbeat that waited while the log was slow keeps its session.
func TestWaitingRequestsGoBeforeTimers(t *testing.T) {
	for range 20 {
		c := clock.NewManual(time.Unix(1e9, 0))
		log := &memlog.Log{}
		r := start(t, Options[*list]{Log: log, Clock: c, MaxPendingBytes: 100})
		session := func(l *list, fx *Effects, p *Promise) {
			fx.SetTimer(TimerKey{Kind: "session"}, 10*time.Second, func(*Effects) { l.settled = append(l.settled, "expired") })
			fx.ReplyNow(p, nil)
		}
		<-background(t, r, session)
		log.Hold()
		a := background(t, r, add(string(make([]byte, 200))))
		eventually(t, func() bool { return log.Held() == 1 })
		heartbeat := background(t, r, session)
		r.mu.Lock()
		mailbox := r.mu.shards[0].mailbox
		r.mu.Unlock()
		eventually(t, func() bool { return len(mailbox) == 1 })
		c.Advance(11 * time.Second)
		log.Release()
		<-a
		<-heartbeat
		got, _ := r.Call(t.Context(), 0, func(l *list, fx *Effects, p *Promise) { fx.ReplyNow(p, fmt.Sprint(l.settled)) })
		if got.(string) == "" || slices.Contains(strings.Fields(strings.Trim(got.(string), "[]")), "expired") {
			t.Fatalf("the session expired: %v", got)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	log := &memlog.Log{}
	r := New(Options[*list]{Log: log, NewMachine: func(int32) *list { return &list{} }})
	defer func() { _ = r.Stop(context.Background()) }()
	r.Lead(0, 1)
	ping := func(_ *list, fx *Effects, p *Promise) { fx.ReplyNow(p, nil) }
	for {
		if _, err := r.Call(b.Context(), 0, ping); err == nil {
			break
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Call(b.Context(), 0, ping); err != nil {
			b.Fatal(err)
		}
	}
}

// A batch says under which epoch its shard was loaded: the log refuses it in another one.
func TestBatchesSayTheirEpoch(t *testing.T) {
	log := &memlog.Log{}
	r := start(t, Options[*list]{Log: log})
	for epoch := base.LeaderEpoch(1); epoch < 4; epoch += 2 {
		r.Lead(0, epoch)
		loaded(t, r)
		if _, err := r.Call(t.Context(), 0, add("x")); err != nil {
			t.Fatal(err)
		}
		bs := log.Batches(0)
		if got := bs[len(bs)-1].LeaderEpoch(); got != epoch {
			t.Errorf("a batch of epoch %d, led in %d", got, epoch)
		}
	}
}
