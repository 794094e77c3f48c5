package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/fetch"
	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/fault"
	"github.com/varvelog/varve/record"
)

// TestColdFailuresAreSeen: every cold read that fails is counted by its cause, and one per second is logged.
func TestColdFailuresAreSeen(t *testing.T) {
	var logged bytes.Buffer
	reader := metric.NewManualReader()
	now := clock.NewManual(time.Unix(1_700_000_000, 0))
	r := newRig(t, 1, fetch.Options{
		Logger: slog.New(slog.NewTextHandler(&logged, nil)), Clock: now, Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"),
	})
	tp, m := r.topic("t", map[string]string{"varve.tiering.max.lag.ms": "100"}), &model{}
	r.put(tp, m, 50, record.CodecNone)
	r.tier(tp)
	lines := func(cause string) int {
		return strings.Count(logged.String(), "level=ERROR msg=\"cold read failed\" cause="+cause)
	}
	read := func(injected error) {
		t.Helper()
		r.bucket.SetRules(fault.When(fault.OfKind(fault.Get), fault.Effect{Err: injected}))
		p := r.svc.Fetch(context.Background(), &fetch.Request{MaxBytes: 1 << 20, Partitions: []fetch.PartitionRequest{part(tp, 0, 1<<20)}})[0]
		if !errors.Is(p.Err, kerr.KafkaStorageError) {
			t.Fatalf("%v: %v", injected, p.Err)
		}
	}
	for range 3 {
		read(fault.ErrInjected)
		read(objstore.ErrNotFound)
	}
	if lines("missing") != 1 || lines("error") != 1 || !strings.Contains(logged.String(), "t-0 at 0") {
		t.Errorf("logged:\n%s", &logged)
	}
	now.Advance(time.Second)
	read(objstore.ErrNotFound)
	if _, err := r.svc.ListOffset(context.Background(), tp, -1, firstTs, false); !errors.Is(err, kerr.KafkaStorageError) {
		t.Errorf("look-up by time: %v", err)
	}
	if lines("missing") != 2 {
		t.Errorf("a second later:\n%s", &logged)
	}
	got := map[string]int64{}
	var rm metricdata.ResourceMetrics
	r.check(reader.Collect(context.Background(), &rm))
	for _, s := range rm.ScopeMetrics {
		for _, x := range s.Metrics {
			if sum, ok := x.Data.(metricdata.Sum[int64]); ok && x.Name == "varve_fetch_cold_failures_total" {
				for _, p := range sum.DataPoints {
					cause, _ := p.Attributes.Value("cause")
					got[cause.AsString()] = p.Value
				}
			}
		}
	}
	if got["error"] != 3 || got["missing"] != 5 {
		t.Errorf("counted %v", got)
	}
}
