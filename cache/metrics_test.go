package cache

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/objstore/objtest"
)

// TestMetricsTellTheTiers reads ten blocks from the bucket, the last two again from memory and the rest from disk.
func TestMetricsTellTheTiers(t *testing.T) {
	reader := sdk.NewManualReader()
	object := objtest.Pattern(1, 1000)
	c := newCache(t, newSource(bucketWith(t, map[string][]byte{"k": object})), Options{
		MemoryBytes: 200, DiskBytes: 1 << 20, Dir: "/c", FS: vfs.NewMem(), BlockBytes: 100,
		Meter: sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test"),
	})
	for _, off := range []int64{0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 800, 900, 0, 100} {
		mustRead(t, c, "k", object, off, 100)
		settle(t, c)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"varve_cache_download_bytes_total{read} 1000",
		"varve_cache_downloads_total{read,ok} 10",
		"varve_cache_evictions_total{memory} 10",
		"varve_cache_hit_bytes_total{disk} 200",
		"varve_cache_hit_bytes_total{memory} 200",
		"varve_cache_hits_total{disk} 2",
		"varve_cache_hits_total{memory} 2",
		"varve_cache_limit_bytes{disk} 1048576",
		"varve_cache_limit_bytes{memory} 200",
		"varve_cache_misses_total{} 10",
		"varve_cache_used_bytes{disk} 40960",
		"varve_cache_used_bytes{memory} 200",
	}
	if lines := nonZero(got); !slices.Equal(lines, want) {
		t.Errorf("metrics:\n got %q\nwant %q", lines, want)
	}
}

func nonZero(rm metricdata.ResourceMetrics) (lines []string) {
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[int64]
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = d.DataPoints
			case metricdata.Gauge[int64]:
				points = d.DataPoints
			}
			for _, p := range points {
				labels := ""
				for _, kv := range p.Attributes.ToSlice() {
					if labels != "" {
						labels += ","
					}
					labels += kv.Value.Emit()
				}
				if value := attribute.Int64Value(p.Value); p.Value != 0 {
					lines = append(lines, m.Name+"{"+labels+"} "+value.Emit())
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}
