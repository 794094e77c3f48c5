package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/varvelog/varve/test/torture/history"
)

// report is everything that was measured.
type report struct {
	System     string               `json:"system"`
	Place      string               `json:"place"`
	Brokers    int                  `json:"brokers"`
	Partitions int                  `json:"partitions"`
	Rate       int                  `json:"recordsPerSecond"`
	Client     string               `json:"client"`
	PauseMs    int64                `json:"pauseMs"`
	Rounds     []round              `json:"rounds"`
	Acked      int                  `json:"acknowledged"`
	Counts     map[history.Kind]int `json:"anomalyCounts"`
	Anomalies  []history.Anomaly    `json:"anomalies"`
	Errors     []string             `json:"errors"`
	Seconds    float64              `json:"seconds"`
}

// print shows median and maximum of each case.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d brokers (%s), %d partitions, %d records/s; %s\n\n", r.System, r.Brokers, r.Place, r.Partitions, r.Rate, r.Client)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "case\trounds\tstall median ms\tmax ms\tfresh median ms\tmax ms\tback median ms\tmax ms\tcalm max ms\t")
	for _, name := range order {
		var stall, fresh, back, quiet []int64
		never := 0
		for _, m := range r.Rounds {
			if m.Case != name {
				continue
			}
			stall, quiet = append(stall, m.Stall), append(quiet, m.Calm)
			if m.Back >= 0 {
				back = append(back, m.Back)
			}
			if m.Fresh >= 0 {
				fresh = append(fresh, m.Fresh)
			} else if name == "pause" || name == "cut" {
				never++
			}
		}
		if len(stall) > 0 {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t\n", name, len(stall), spread(stall, 0), spread(fresh, never), spread(back, 0), fmt.Sprint(slices.Max(quiet)))
		}
	}
	_ = t.Flush() // to a terminal or a buffer
	fmt.Fprintf(w, "\n%d records acknowledged, anomalies: %v\n", r.Acked, r.Counts)
	for _, a := range r.Anomalies {
		fmt.Fprintln(w, " ", a)
	}
	for _, e := range r.Errors {
		fmt.Fprintln(w, "  error:", e)
	}
}

// spread is median and maximum; never is how many rounds had no figure because it never happened.
func spread(v []int64, never int) string {
	if never > 0 {
		return fmt.Sprintf("never: %d\tof %d", never, never+len(v))
	}
	if len(v) == 0 {
		return "-\t-"
	}
	slices.Sort(v)
	return fmt.Sprintf("%d\t%d", median(v), v[len(v)-1])
}

// median of sorted figures; of an even number the mean of the middle two.
func median(v []int64) int64 { return (v[(len(v)-1)/2] + v[len(v)/2]) / 2 }
