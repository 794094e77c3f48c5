package main

import (
	"strings"
	"testing"
)

func TestDifference(t *testing.T) {
	f := func(kafka, varve, want string) {
		t.Helper()
		words := map[string]string{"127.0.0.1:1": "BROKER", "127.0.0.1:2": "BROKER"}
		if got := strings.Join(difference(normalise(kafka, words), normalise(varve, words)), "|"); got != want {
			t.Errorf("%q and %q differ by %q, want %q", kafka, varve, got, want)
		}
	}
	f("b\na\n", "a\n\nb", "")
	f("at 127.0.0.1:1   x", "at 127.0.0.1:2 x", "")
	f("Topic: t TopicId: AAAAAAAAAAAAAAAAAAAAAA", "Topic: t TopicId: BBBBBBBBBBBBBBBBBBBBBB", "")
	f(`"size":7`, `"size":9`, "")
	f(`"size":0`, `"size":9`, `- "size":0|+ "size":SIZE`)
	f("exit status 1", "exit status 0", "+ exit status 0|- exit status 1")
	f("a\na", "a", "- a")
	f("a\nc", "a\nb\nd", "+ b|- c|+ d")
}

func TestExplainedIsWhatStandsInBlocks(t *testing.T) {
	known := explained("- a list\n```\n- a line\n+ varve....\nkafka-x --y\n+ of x\n```\n+ outside\n```\n+ again\n```\n")
	f := func(command, difference string, want bool) {
		t.Helper()
		if known.have(command, difference) != want {
			t.Errorf("%s, %s: want %v", command, difference, want)
		}
	}
	f("kafka-z", "- a line", true)
	f("kafka-z", "+ again", true)
	f("kafka-z", "+ a line", false)
	f("kafka-z", "- a list", false)
	f("kafka-z", "+ outside", false)
	f("kafka-z", "+ varve.x=1", true)
	f("kafka-z", "- varve.x=1", false)
	f("kafka-x --y", "+ of x", true)
	f("kafka-x", "+ of x", false)
}
