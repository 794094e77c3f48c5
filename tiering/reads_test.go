package tiering_test

import (
	"fmt"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// TestTailMovesNoRecord starts logs over on a broker that has nothing in memory: of each it reads its manifest and the footer of its
// last segment, to the byte, though its cache would load whole blocks; and the metric says so.
func TestTailMovesNoRecord(t *testing.T) {
	e := tiertest.New(t, nil)
	logs := workload(e)
	e.Drain()
	reader := sdk.NewManualReader()
	e.Tune = func(o *tiering.Options) {
		o.Meter = sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")
	}
	e.Restart()
	e.Mem.ResetTrace()
	var want []string
	bytes := map[string]int64{}
	for _, l := range logs {
		if _, err := e.Tier.Reader().Tail(t.Context(), l.State.Log, 0); err != nil {
			t.Fatal(err)
		}
		root, _ := e.Tier.Root(l.State.Log)
		m, err := e.Tier.Manifest(t.Context(), l.State.Log) // in memory since Tail
		if err != nil {
			t.Fatal(err)
		}
		last := m.Entries[len(m.Entries)-1]
		want = append(want, fmt.Sprintf("get %s [%d, +%d): ok", root.Object, root.Pos, root.Len),
			fmt.Sprintf("get %s [%d, +%d): ok", last.Object, last.Pos+last.Len-last.TailBytes, last.TailBytes))
		bytes["manifest"] += root.Len
		bytes["footer"] += last.TailBytes
	}
	if got := e.Mem.Trace(); !slices.Equal(got, want) {
		t.Errorf("the bucket was asked\n%q\nwant\n%q", got, want)
	}
	checkBytesRead(t, reader, bytes)
	// Whoever reads records goes through the cache, which counts for itself.
	e.CheckReads(3000, logs...)
	checkBytesRead(t, reader, bytes)
}

// checkBytesRead compares what the metric says was read past the cache, by kind.
func checkBytesRead(t *testing.T, reader *sdk.ManualReader, want map[string]int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "varve_tiering_read_bytes" {
				for _, p := range sum.DataPoints {
					kind, _ := p.Attributes.Value(attribute.Key("kind"))
					got[kind.AsString()] += p.Value
				}
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read past the cache %v, want %v", got, want)
	}
}
