package broker

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvelog/varve/internal/clock"
)

// recorder is a table of modules that note what happens to them.
type recorder struct {
	mu  sync.Mutex
	log []string
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, s)
}

func (r *recorder) module(name string, err error, needs ...string) module {
	return module{name, needs,
		func(context.Context) error { r.note("start " + name); return err },
		func(context.Context) error { r.note("stop " + name); return nil }}
}

func TestModulesStartAfterTheirNeedsAndStopBefore(t *testing.T) {
	var r recorder
	m := modules{log: slog.New(slog.DiscardHandler), table: []module{
		r.module("c", nil, "b"), r.module("b", nil, "a"), r.module("a", nil),
	}}
	if err := m.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"start a", "start b", "start c", "stop c", "stop b", "stop a"}
	if !slices.Equal(r.log, want) {
		t.Fatalf("order %v, want %v", r.log, want)
	}
}

func TestModulesFailedStartLeavesNothingRunning(t *testing.T) {
	var r recorder
	cause := errors.New("no room")
	m := modules{log: slog.New(slog.DiscardHandler), table: []module{
		r.module("a", nil), r.module("b", cause, "a"), r.module("c", nil, "b"),
	}}
	err := m.start(t.Context())
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "start b") {
		t.Fatalf("start answered %v", err)
	}
	if want := []string{"start a", "start b", "stop a"}; !slices.Equal(r.log, want) {
		t.Fatalf("order %v, want %v", r.log, want)
	}
}

// TestModulesFailedStartLeavesBehindWhatHangs: the process has to end, so that it can be started again.
func TestModulesFailedStartLeavesBehindWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		release := make(chan struct{})
		defer close(release)
		hangs, cause := r.module("a", nil), errors.New("no room")
		hangs.stop = func(context.Context) error { <-release; return nil }
		m := modules{log: slog.New(slog.DiscardHandler), clock: clock.Real{}, table: []module{hangs, r.module("b", cause, "a")}}
		if err := m.start(t.Context()); !errors.Is(err, cause) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("start answered %v", err)
		}
	})
}

// TestModulesStopLeavesBehindWhatHangs: a goroutine that waits for a full disk must not keep the process.
func TestModulesStopLeavesBehindWhatHangs(t *testing.T) {
	var r recorder
	release := make(chan struct{})
	defer close(release)
	hangs := r.module("b", nil, "a")
	reached := make(chan struct{})
	hangs.stop = func(context.Context) error { close(reached); <-release; return nil }
	c := clock.NewManual(time.Unix(0, 0))
	m := modules{log: slog.New(slog.DiscardHandler), clock: c, table: []module{r.module("a", nil), hangs, r.module("c", nil, "b")}}
	if err := m.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	answer := make(chan error, 1)
	go func() { answer <- m.stop(ctx) }()
	<-reached // before that the clock would run out for the module that stops as it should
	for {
		select {
		case err := <-answer:
			if err == nil || !strings.Contains(err.Error(), "stop b") {
				t.Fatalf("stop answered %v", err)
			}
			if slices.Contains(r.log, "stop a") {
				t.Fatal("what the hanging module needs was stopped under it")
			}
			return
		default:
			c.Advance(stopGrace)
			runtime.Gosched()
		}
	}
}

func TestTableNamesWhatItNeeds(t *testing.T) {
	names := map[string]bool{}
	table := (&Broker{}).table()
	for _, m := range table {
		if names[m.name] {
			t.Errorf("module %s stands twice", m.name)
		}
		names[m.name] = true
	}
	for _, m := range table {
		for _, need := range m.needs {
			if !names[need] {
				t.Errorf("module %s needs %s, which is not in the table", m.name, need)
			}
		}
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	f := func(change func(*Config), want string) {
		t.Helper()
		var c Config
		if err := c.EnsureDefaults(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		err := c.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Validate: %v, want %q", err, want)
		}
	}
	f(func(*Config) {}, "")
	f(func(c *Config) { c.KafkaAddr = "A=PLAINTEXT://127.0.0.1:9092" }, "")
	f(func(c *Config) { c.KafkaAddr = "A=SSL://127.0.0.1:9092" }, "SSL is not built yet")
	f(func(c *Config) { c.KafkaAddr = "127.0.0.1:1,127.0.0.1:2" }, "one listener")
	f(func(c *Config) { c.HTTPAddr = "8080" }, "--http-addr")
	f(func(c *Config) { c.Voters = "1@a:1,b:1" }, "--voters")
	f(func(c *Config) { c.Voters = "1@a:1,x@b:1" }, "--voters")
	f(func(c *Config) { c.Memory = 1 }, "--memory")
	g := func(c Config, want string) {
		t.Helper()
		if err := c.EnsureDefaults(); err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Validate: %v, want %q", err, want)
		}
	}
	g(Config{Voters: "1@a:1"}, "")
	g(Config{Voters: "1@a:1,2@b:1"}, "--object-store")
	g(Config{Voters: "2@b:1"}, "--object-store")
	g(Config{Voters: "1@a:1,2@b:1", ObjectStore: "dir:///shared"}, "")
}
