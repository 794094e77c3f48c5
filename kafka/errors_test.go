package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/loglimit"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// TestErrors is the table from errors to codes and words.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  int16
		known bool
		words string
	}{
		{nil, 0, true, ""},
		{kerr.UnknownTopicOrPartition, 3, true, "This server does not host this topic-partition."},
		{fmt.Errorf("append to t-0: %w", kerr.NotLeaderForPartition), 6, true, "append to t-0"},
		{&metadata.Error{Kafka: kerr.InvalidConfig, Message: "Unknown topic config name: x"}, 40, true, "Unknown topic config name: x"},
		{fmt.Errorf("create t: %w", &metadata.Error{Kafka: kerr.InvalidConfig, Message: "no"}), 40, true, "create t: no"},
		{refuse(kerr.InvalidRequest, "Duplicate topic name."), 42, true, "Duplicate topic name."},
		{&record.InvalidError{Err: kerr.InvalidRecord, Message: "bad"}, 87, true, ""},
		{base.MarkCorruption(errors.New("block 7")), 56, true, ""},
		{fmt.Errorf("read: %w", base.MarkCorruption(errors.New("block 7"))), 56, true, ""},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), 7, true, ""},
		{context.Canceled, 6, true, ""},
		{errors.New("etcd: secret internals"), -1, false, "The server experienced an unexpected error when processing the request."},
	} {
		code, known := codeOf(c.err)
		if code != c.code || known != c.known {
			t.Errorf("%v: code %d (known %v), want %d (%v)", c.err, code, known, c.code, c.known)
		}
		words := messageOf(c.err)
		if (words == nil) != (c.err == nil) || (c.words != "" && *words != c.words) {
			t.Errorf("%v: words %q, want %q", c.err, *words, c.words)
		}
	}
}

// TestConnectionLimitsAreSettings: max.connections.per.ip and its overrides are read for each connection.
func TestConnectionLimitsAreSettings(t *testing.T) {
	e := newQuietEdge(t, nil)
	if l := e.s.connectionLimits("10.0.0.1"); l.total != defaultMaxConnections || l.perIP < 1<<30 {
		t.Errorf("defaults: %+v", l)
	}
	set := func(name, value string) {
		t.Helper()
		err := e.meta.IncrementalAlterConfigs(t.Context(), metadata.Resource{Type: metadata.ResourceBroker},
			[]metadata.ConfigOp{{Name: name, Value: &value}}, false)
		if err != nil {
			t.Fatalf("set %s: %v", name, err)
		}
	}
	set("max.connections", "77")
	set("max.connections.per.ip", "5")
	set("max.connections.per.ip.overrides", "10.0.0.1:9,10.0.0.2:1")
	for ip, want := range map[string]int{"10.0.0.1": 9, "10.0.0.2": 1, "10.0.0.3": 5} {
		if l := e.s.connectionLimits(ip); l.total != 77 || l.perIP != want {
			t.Errorf("%s: %+v, want 77 and %d", ip, l, want)
		}
	}
}

func TestLogLimit(t *testing.T) {
	l := loglimit.Limit{PerSecond: linesPerSecond}
	now := time.Unix(1000, 0)
	passed := 0
	for range 3 * linesPerSecond {
		if l.Allow(now) {
			passed++
		}
	}
	if passed != linesPerSecond || !l.Allow(now.Add(time.Second)) {
		t.Errorf("%d lines in a second, want %d, and more in the next", passed, linesPerSecond)
	}
}
