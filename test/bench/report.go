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
	// Others is the cores that other processes kept busy meanwhile, the kernel's threads among them: noise.
	Others float64 `json:"othersCores"`
}

// String is the line that is shown as a workload ends.
func (m measurement) String() string {
	if m.Bytes == 0 {
		return fmt.Sprintf("%.1f %% of a core, RSS %.0f MB", m.CPUPercent, float64(m.RSSBytes)/1e6)
	}
	return fmt.Sprintf("%.1f MB/s, %.2f CPU s/GB, %.2f written per byte, RSS %.0f MB, ack %.1f/%.1f/%.1f ms, others %.2f cores",
		m.MBPerSecond, m.CPUPerGB, m.WrittenPerByte, float64(m.RSSBytes)/1e6, m.Ack.P50Ms, m.Ack.P99Ms, m.Ack.P999Ms, m.Others)
}

// report is everything that was measured.
type report struct {
	Machine string        `json:"machine"`
	Started time.Time     `json:"started"`
	Quick   bool          `json:"quick"`
	FileMs  float64       `json:"fileMs"` // to create an empty file, where the brokers keep theirs
	Results []measurement `json:"results"`
	Ran     []string      `json:"ran"` // systems, in their order
	Scales  []scaleResult `json:"scales,omitempty"`
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
		{"RSS, largest broker", "MB", func(m measurement) float64 { return float64(m.RSSBytes) / 1e6 }},
	}
}

// print shows the median of each figure over the rounds, and Varve's as a multiple of Kafka's.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s; medians of the rounds; ratio = Varve / Kafka; brokers' memory: Kafka -Xmx%s each, Varve --memory %s each of a cluster; CPU is the sum of the brokers'\na file is created in %.2f ms (Kafka makes several for each partition)\n\n",
		r.Machine, heap, budget, r.FileMs)
	if len(r.Results) > 0 {
		r.printWorkloads(out)
	}
	if len(r.Scales) > 0 {
		r.printScale(out)
	}
}

func (r *report) printWorkloads(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tfigure\tunit\tKafka 4.3\tVarve\tratio\t")
	for _, wl := range append(workloads(), clusterWorkloads()...) {
		name := wl.name
		for _, f := range figures() {
			if strings.HasPrefix(f.name, "ack") && !wl.acks {
				continue
			}
			k, v := r.median("kafka", wl.name, f.of), r.median("varve", wl.name, f.of)
			if k == 0 && v == 0 {
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t\n", name, f.name, f.unit, number(k), number(v), quotient(v, k))
			name = ""
		}
	}
	_ = w.Flush() // standard output: nobody to tell
}

// scaleFigures are the lines of the table of -scale.
func scaleFigures() []scaleFigure {
	return []scaleFigure{
		{"create", "s", func(s scaleResult) float64 { return s.CreateSeconds }},
		{"first record of each", "s", func(s scaleResult) float64 { return s.FirstSeconds }},
		{"idle CPU, all brokers", "% core", func(s scaleResult) float64 { return s.IdleCPU }},
		{"stop one by one", "s", func(s scaleResult) float64 { return s.StopSeconds }},
		{"start at once", "s", func(s scaleResult) float64 { return s.StartSeconds }},
		{"kill -9 a member: led", "s", func(s scaleResult) float64 { return s.Member.LedSeconds }},
		{"  acknowledged, median", "s", func(s scaleResult) float64 { return s.Member.MedianAcked }},
		{"  acknowledged, all", "s", func(s scaleResult) float64 { return s.Member.AckedSeconds }},
		{"  back: in sync", "s", func(s scaleResult) float64 { return s.Member.InSyncSeconds }},
		{"  back: preferred leaders", "s", func(s scaleResult) float64 { return s.Member.PreferredSeconds }},
		{"kill -9 the controller: led", "s", func(s scaleResult) float64 { return s.Controller.LedSeconds }},
		{"  acknowledged, median", "s", func(s scaleResult) float64 { return s.Controller.MedianAcked }},
		{"  acknowledged, all", "s", func(s scaleResult) float64 { return s.Controller.AckedSeconds }},
		{"  back: in sync", "s", func(s scaleResult) float64 { return s.Controller.InSyncSeconds }},
		{"  back: preferred leaders", "s", func(s scaleResult) float64 { return s.Controller.PreferredSeconds }},
		{"RSS, largest broker, created", "MB", func(s scaleResult) float64 { return largest(s.RSSCreated) / 1e6 }},
		{"RSS, largest broker, at the end", "MB", func(s scaleResult) float64 { return largest(s.RSSEnd) / 1e6 }},
	}
}

type scaleFigure struct {
	name string
	unit string
	of   func(scaleResult) float64
}

func largest(all []int64) float64 {
	if len(all) == 0 {
		return 0
	}
	return float64(slices.Max(all))
}

// printScale shows what many partitions cost.
func (r *report) printScale(out io.Writer) {
	fmt.Fprintf(out, "\n%d partitions x %d replicas on %d brokers; - is not measured, or not within the time (%s; %s for preferred leaders)\n\n",
		r.Scales[0].Partitions, brokers, brokers, scalePatience, leaderPatience)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "figure\tunit\tKafka 4.3\tVarve\tratio\t")
	for _, f := range scaleFigures() {
		k, v := r.scaleMedian("kafka", f), r.scaleMedian("varve", f)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", f.name, f.unit, number(k), number(v), quotient(v, k))
	}
	_ = w.Flush() // standard output: nobody to tell
	for _, s := range r.Scales {
		for _, note := range s.Notes {
			fmt.Fprintf(out, "%s, round %d: %s\n", s.System, s.Round, note)
		}
	}
}

// scaleMedian is over the rounds that came so far: a round without the figure must not pass for a fast one.
func (r *report) scaleMedian(system string, f scaleFigure) float64 {
	var all []float64
	for _, s := range r.Scales {
		if got := f.of(s); s.System == system && got > 0 {
			all = append(all, got)
		}
	}
	return median(all)
}

func quotient(v, k float64) string {
	if v == 0 || k == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v/k)
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
	return median(all)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
