package open

import (
	"errors"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/varvelog/varve/objstore"
	"github.com/varvelog/varve/objstore/s3"
)

func TestBadURLs(t *testing.T) {
	for _, url := range []string{"", "bucket", "dir:", "dir:/one/slash", "dir://", "s3://", "s3://b?x=1", "file:///x", "gs://b"} {
		if b, err := Open(t.Context(), url, Options{}); err == nil {
			t.Errorf("%q: opened %v", url, b)
		}
		if CheckURL(url) == nil {
			t.Errorf("%q: checked", url)
		}
	}
	if _, err := s3.ParseURL("s3://b?endpoint=x"); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestDirOutlivesTheBucket(t *testing.T) {
	url := "dir://" + t.TempDir() + "/not yet/there"
	for i := range 2 {
		b, err := Open(t.Context(), url, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			_, err = b.Put(t.Context(), "k", objstore.BodyOf([]byte("x")))
		} else {
			_, err = b.Get(t.Context(), "k", 0, 1)
		}
		if err != nil {
			t.Errorf("open %d: %v", i, err)
		}
		b.Close()
	}
}

// TestRequestsAreMetered reads the counters back: one line per operation and outcome.
func TestRequestsAreMetered(t *testing.T) {
	reader := sdk.NewManualReader()
	b, err := Open(t.Context(), "mem:", Options{Meter: sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.Put(t.Context(), "k", objstore.BodyOf([]byte("abc")))
	}
	b.Get(t.Context(), "k", 1, 2)
	b.Get(t.Context(), "none", 0, 1)
	for range b.List(t.Context(), "", "") {
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	lines := sums(got, "varve_objstore_requests_total")
	if want := []string{"get not_found 1", "get ok 1", "list ok 1", "put exists 1", "put ok 1"}; !slices.Equal(lines, want) {
		t.Errorf("requests:\n got %q\nwant %q", lines, want)
	}
	if lines, want := sums(got, "varve_objstore_bytes_total"), []string{"get  2", "put  3"}; !slices.Equal(lines, want) {
		t.Errorf("bytes:\n got %q\nwant %q", lines, want)
	}
	if lines, want := sums(got, "varve_objstore_requests_running"), []string{"get  0", "list  0", "put  0"}; !slices.Equal(lines, want) {
		t.Errorf("running:\n got %q\nwant %q", lines, want)
	}
}

func sums(rm metricdata.ResourceMetrics, name string) (lines []string) {
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != name || !ok {
				continue
			}
			for _, p := range sum.DataPoints {
				label := func(k attribute.Key) string { v, _ := p.Attributes.Value(k); return v.AsString() }
				value := attribute.Int64Value(p.Value)
				lines = append(lines, label("operation")+" "+label("outcome")+" "+value.Emit())
			}
		}
	}
	slices.Sort(lines)
	return lines
}
