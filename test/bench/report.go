package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/varvelog/varve/cmd/varve/load"
)

// measurement is what one workload came to on one broker. Zero: not measured.
type measurement struct {
	Workload         string         `json:"workload"`
	System           string         `json:"system"`
	Round            int            `json:"round"`
	Bytes            int64          `json:"bytes"` // of values
	MBPerSecond      float64        `json:"mbPerSecond"`
	RecordsPerSecond float64        `json:"recordsPerSecond"`
	Ack              load.Quantiles `json:"ack"`
	EndToEnd         load.Quantiles `json:"endToEnd"`
	CPUPerGB         float64        `json:"cpuSecondsPerGB"`
	WrittenPerByte   float64        `json:"writtenPerByte"`
	// Parts of WrittenPerByte that the broker tells apart: write-ahead log, flush, compaction, bucket.
	Parts      map[string]float64 `json:"writtenParts,omitempty"`
	RSSBytes   int64              `json:"rssBytes"`
	PeakBytes  int64              `json:"peakRssBytes"`
	CPUPercent float64            `json:"cpuPercent,omitempty"` // idle
}

// String is the line that is shown as a workload ends.
func (m measurement) String() string {
	if m.Bytes == 0 {
		return fmt.Sprintf("%.1f %% of a core, RSS %.0f MB", m.CPUPercent, float64(m.RSSBytes)/1e6)
	}
	return fmt.Sprintf("%.1f MB/s, %.2f CPU s/GB, %.2f written per byte, RSS %.0f MB", m.MBPerSecond, m.CPUPerGB, m.WrittenPerByte, float64(m.RSSBytes)/1e6)
}

// report is everything that was measured.
type report struct {
	Machine string        `json:"machine"`
	Started time.Time     `json:"started"`
	Quick   bool          `json:"quick"`
	Results []measurement `json:"results"`
	Errors  []string      `json:"errors,omitempty"`
}

func machine() string {
	name := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				name = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s", name, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}

func (r *report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// figure is a line of the table.
type figure struct {
	name string
	unit string
	of   func(measurement) float64
}

func figures() []figure {
	return []figure{
		{"throughput", "MB/s", func(m measurement) float64 { return m.MBPerSecond }},
		{"records", "k/s", func(m measurement) float64 { return m.RecordsPerSecond / 1000 }},
		{"ack p50", "ms", func(m measurement) float64 { return m.Ack.P50Ms }},
		{"ack p99", "ms", func(m measurement) float64 { return m.Ack.P99Ms }},
		{"ack p999", "ms", func(m measurement) float64 { return m.Ack.P999Ms }},
		{"end to end p50", "ms", func(m measurement) float64 { return m.EndToEnd.P50Ms }},
		{"end to end p99", "ms", func(m measurement) float64 { return m.EndToEnd.P99Ms }},
		{"broker CPU", "s/GB", func(m measurement) float64 { return m.CPUPerGB }},
		{"idle CPU", "% core", func(m measurement) float64 { return m.CPUPercent }},
		{"written per byte", "", func(m measurement) float64 { return m.WrittenPerByte }},
		{"  WAL", "", func(m measurement) float64 { return m.Parts["WAL"] }},
		{"  flush", "", func(m measurement) float64 { return m.Parts["flush"] }},
		{"  compaction", "", func(m measurement) float64 { return m.Parts["compaction"] }},
		{"  bucket", "", func(m measurement) float64 { return m.Parts["bucket"] }},
		{"RSS", "MB", func(m measurement) float64 { return float64(m.RSSBytes) / 1e6 }},
	}
}

// print shows the median of each figure over the rounds, and Varve's as a multiple of Kafka's.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s; medians of the rounds; ratio = Varve / Kafka\n\n", r.Machine)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tfigure\tunit\tKafka 4.3\tVarve\tratio\t")
	for _, wl := range workloads() {
		name := wl.name
		for _, f := range figures() {
			// Where a producer runs at full speed its latency is the length of its own queue.
			if strings.HasPrefix(f.name, "ack") && wl.name != "latency-5k" {
				continue
			}
			k, v := r.median("kafka", wl.name, f.of), r.median("varve", wl.name, f.of)
			if k == 0 && v == 0 {
				continue
			}
			ratio := "-"
			if k > 0 && v > 0 {
				ratio = fmt.Sprintf("%.2f", v/k)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t\n", name, f.name, f.unit, number(k), number(v), ratio)
			name = ""
		}
	}
	_ = w.Flush() // standard output: nobody to tell
}

func number(f float64) string {
	if f == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", f)
}

func (r *report) median(system, workload string, of func(measurement) float64) float64 {
	var all []float64
	for _, m := range r.Results {
		if m.System == system && m.Workload == workload {
			all = append(all, of(m))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
