package tiering_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/internal/clock"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// TestLoopOutlivesTheBucket runs the archiver through a day without the bucket (I13), in the time of a synctest bubble.
func TestLoopOutlivesTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		meter := metric.NewMeterProvider(metric.WithReader(reader)).Meter("test")
		e := tiertest.New(t, func(o *tiering.Options) {
			o.Clock, o.Meter, o.RetryMin, o.RetryMax = clock.Real{}, meter, 0, 0
		})
		e.Source.Plain = true
		logs := workload(e)
		e.Faults.BucketDown(true)
		e.Check(e.Tier.Start(t.Context()))
		time.Sleep(24 * time.Hour)
		refused := e.Faults.BucketDown(true)
		// Six objects, five attempts each, every ten seconds or so: it neither gave up nor span.
		if refused < 1000 || refused > 200_000 {
			t.Errorf("%d requests in a day without the bucket", refused)
		}
		if bytes, ms := gauge(t, reader, "varve_tiering_lag_bytes"), gauge(t, reader, "varve_tiering_lag_ms"); bytes < 10_000 || ms < 24*3600*1000 {
			t.Errorf("lag of %d bytes, %d ms", bytes, ms)
		}
		e.Faults.BucketDown(false)
		time.Sleep(time.Minute)
		e.CheckReads(4000, logs...)
		if bytes := gauge(t, reader, "varve_tiering_lag_bytes"); bytes != 0 {
			t.Errorf("lag of %d bytes when everything is tiered", bytes)
		}
		rnd := rand.New(rand.NewPCG(9, 9))
		e.Source.Fill(logs[0], rnd, 3, 50)
		time.Sleep(2 * time.Second) // the linger of short ranges, and a round
		e.CheckReads(4000, logs...)
		e.Tier.Stop()
		if in, err := e.Store.Intents(context.Background()); err != nil || len(in) != 0 {
			t.Errorf("intents left: %v %v", in, err)
		}
	})
}

// gauge reads the one value of an instrument.
func gauge(t *testing.T, reader metric.Reader, name string) int64 {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	for _, s := range rm.ScopeMetrics {
		for _, m := range s.Metrics {
			if g, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == name {
				return g.DataPoints[0].Value
			}
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
