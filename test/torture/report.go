package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/varvelog/varve/test/torture/history"
)

// report is what a run prints at its end.
type report struct {
	Seed      uint64               `json:"seed"`
	Brokers   int                  `json:"brokers"`
	System    string               `json:"system"`
	Seconds   float64              `json:"seconds"`
	Faults    map[kind]int         `json:"faults"`
	LeftOut   []string             `json:"leftOut,omitempty"` // faults that this machine does not allow, and why
	Moves     map[string]int       `json:"moves,omitempty"`
	Acked     int                  `json:"acknowledged"`
	Read      map[string]int       `json:"read"`
	Group     map[string]int64     `json:"group,omitempty"`
	WholeMs   int64                `json:"wholeAfterMs,omitempty"` // from the end of the last fault until all replicas were in sync
	Ready     map[string]int64     `json:"readyMs,omitempty"`
	Fsck      json.RawMessage      `json:"fsck,omitempty"`
	Counts    map[history.Kind]int `json:"anomalyCounts"`
	Anomalies []history.Anomaly    `json:"anomalies"`
	Problems  []string             `json:"problems"` // what else went wrong
}

func newReport(o options) *report {
	r := &report{Seed: o.seed, Brokers: o.site.Brokers, System: "Varve", Faults: map[kind]int{}, Moves: map[string]int{}, Read: map[string]int{},
		Anomalies: []history.Anomaly{}, Problems: []string{}}
	if o.site.Kafka {
		r.System = "Apache Kafka 4.3"
	}
	return r
}

func (r *report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	fmt.Fprintf(os.Stderr, "torture: "+format+"\n", args...)
}

// take adds what the history found.
func (r *report) take(h *history.History) {
	r.Acked = h.Acked()
	r.Anomalies, r.Counts = h.Anomalies()
}

func (r *report) clean() bool { return len(r.Counts)+len(r.Problems) == 0 }

// print writes the JSON to standard output and, where something is wrong, a summary to standard error.
func (r *report) print() {
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
	}
	fmt.Println(string(out))
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(os.Stderr, "torture: %s: %d\n", k, r.Counts[k])
	}
}
