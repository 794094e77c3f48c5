package main

import (
	"bytes"
	"testing"
	"time"
)

func TestParsePosition(t *testing.T) {
	f := func(in string, want position, wantErr bool) {
		t.Helper()
		got, err := parsePosition(in)
		if (err != nil) != wantErr || got.kind != want.kind || got.offset != want.offset || !got.time.Equal(want.time) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	f("beginning", position{kind: atBeginning}, false)
	f("end", position{kind: atEnd}, false)
	f("17", position{kind: atOffset, offset: 17}, false)
	f("2026-11-01T00:00:00Z", position{kind: atTime, time: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}, false)
	f("2026-11-01", position{kind: atTime, time: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}, false)
	f("-5", position{}, true)
	f("1h", position{}, true)
	f("", position{}, true)
	ago, err := parsePosition("-1h")
	if err != nil || ago.kind != atTime || !ago.time.Before(time.Now()) {
		t.Errorf("%+v, %v", ago, err)
	}
}

func TestParseTopicPartitions(t *testing.T) {
	f := func(in, topic string, partitions []int32, wantErr bool) {
		t.Helper()
		gotTopic, got, err := parseTopicPartitions(in)
		if (err != nil) != wantErr || gotTopic != topic || cell(got) != cell(partitions) {
			t.Errorf("%q: %q %v, %v", in, gotTopic, got, err)
		}
	}
	f("orders", "orders", nil, false)
	f("orders:0,3", "orders", []int32{0, 3}, false)
	f("orders:x", "", nil, true)
	f("orders:-1", "", nil, true)
	f(":1", "", nil, true)
}

// Every command has a short description, and every one that does something an example.
func TestEveryCommandIsExplained(t *testing.T) {
	var out bytes.Buffer
	root := newRoot(&app{getenv: func(string) string { return "" }, out: &out, err: &out})
	for _, noun := range root.Commands() {
		for _, c := range append(noun.Commands(), noun) {
			if c.Short == "" || (c.Example == "" && !c.HasSubCommands()) {
				t.Errorf("%s: no description or no example", c.CommandPath())
			}
		}
	}
}
