package tiering_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/tiering"
	"github.com/varvelog/varve/tiering/tiertest"
)

// watched is an Env with its log and metrics. before is called before each PUT; its error is the PUT's.
func watched(t *testing.T, before func(tiering.Name) error) (e *tiertest.Env, logged *bytes.Buffer, refused func() int64) {
	logged = &bytes.Buffer{}
	reader := metric.NewManualReader()
	e = tiertest.New(t, func(o *tiering.Options) {
		o.Logger = slog.New(slog.NewTextHandler(logged, nil))
		o.Meter = metric.NewMeterProvider(metric.WithReader(reader)).Meter("test")
		o.Bucket = failingPut{o.Bucket, before}
	})
	return e, logged, func() int64 {
		var rm metricdata.ResourceMetrics
		e.Check(reader.Collect(context.Background(), &rm))
		for _, s := range rm.ScopeMetrics {
			for _, m := range s.Metrics {
				if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "varve_tiering_commits_refused" {
					return sum.DataPoints[0].Value
				}
			}
		}
		return 0
	}
}

type failingPut struct {
	tiering.Bucket
	before func(tiering.Name) error
}

func (b failingPut) Put(ctx context.Context, key string, body objstore.Body) (objstore.Info, error) {
	if err := b.before(tiering.ParseName(key)); err != nil {
		return objstore.Info{}, err
	}
	return b.Bucket.Put(ctx, key, body)
}

// TestFirstRangeFails fails the upload of a log's first range, and not that of its second one, which cannot be committed
// then: nothing tries to, and what was not uploaded is not trimmed.
func TestFirstRangeFails(t *testing.T) {
	var e *tiertest.Env
	var logs []*tiertest.Log
	failing, second := true, 0
	e, logged, refused := watched(t, func(n tiering.Name) error {
		switch {
		case n.Kind != tiering.KindSegment || n.Log != logs[2].State.Log:
		case n.Base > 0:
			second++
		case failing:
			return tiertest.ErrInjected
		}
		return nil
	})
	logs = workload(e)
	if n, err := e.Tier.RunOnce(context.Background()); err == nil || n != 4 || second == 0 {
		t.Fatalf("%d ranges settled, %d objects of the second range, error %v", n, second, err)
	}
	if logs[2].Tiered != 0 {
		t.Fatalf("tiered up to %d without the first range", logs[2].Tiered)
	}
	if n := refused(); n != 0 || strings.Contains(logged.String(), "refused") {
		t.Errorf("%d commits refused:\n%s", n, logged)
	}
	if n := len(e.Tier.TakeGarbage()); n != second {
		t.Errorf("%d objects of %d are garbage", n, second)
	}
	failing = false
	e.Drain()
	e.CheckReads(3000, logs...)
	e.CheckRoots()
}

// TestTopicDeletedBeforeCommit deletes a topic after its ranges were uploaded, before its manifest is made or before the
// root is swapped. That is nothing to warn of, and no commit was fenced.
func TestTopicDeletedBeforeCommit(t *testing.T) {
	for _, kind := range []tiering.Kind{tiering.KindSegment, tiering.KindManifest} {
		var e *tiertest.Env
		var deleted atomic.Bool
		e, logged, refused := watched(t, func(n tiering.Name) error {
			if n.Kind != kind || deleted.Swap(true) {
				return nil
			}
			topic, _ := e.Store.Image().Topic("t")
			return e.Store.DeleteTopic(context.Background(), topic.ID)
		})
		workload(e)
		if n, err := e.Tier.RunOnce(context.Background()); n != 0 || err != nil || !deleted.Load() {
			t.Errorf("deleted before %v: %d ranges settled, %v", kind, n, err)
		}
		if n := refused(); n != 0 || strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "level=INFO") {
			t.Errorf("deleted before %v: %d commits fenced, logged:\n%s", kind, n, logged)
		}
	}
}
