package main

import (
	"strings"
	"testing"
	"time"

	"github.com/varvelog/varve/internal/testutil/proc"
)

func TestCounters(t *testing.T) {
	const page = `# HELP varve_tiering_read_bytes Bytes
# TYPE varve_tiering_read_bytes counter
varve_tiering_read_bytes{kind="manifest"} 100
varve_tiering_read_bytes{kind="archive"} 20
varve_tiering_read_bytes{kind="footer"} 7
varve_tiering_read_bytes{kind="body"} 1000
varve_cache_download_bytes_total{cause="read"} 1.048576e+06
varve_cache_download_bytes_total{cause="readahead"} 4
varve_objstore_bytes_total{operation="get"} 1.049710e+06
varve_objstore_bytes_total{operation="put"} 5000000
varve_objstore_requests_total{operation="get",outcome="ok"} 9
varve_objstore_requests_total{operation="get",outcome="retry"} 1
varve_replication_in_bytes_total 12
varve_replication_started_over_total 3
varve_ingest_untiered_bytes 8
varve_ingest_untiered_limit_bytes 16
`
	m, err := proc.ParseMetrics(strings.NewReader(page))
	got := countersOf(m)
	want := counters{Replicated: 12, StartedOver: 3, Untiered: 8, Records: 1<<20 + 1004, Manifests: 120, Footers: 7, Other: 3, Gets: 10}
	if err != nil || got != want {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
	if _, err := proc.ParseMetrics(strings.NewReader("varve_ingest_untiered_bytes x\n")); err == nil {
		t.Error("no number, and no error")
	}
}

func TestBrokenPromises(t *testing.T) {
	kept := arrival{Broker: 4, ShareSeconds: 29, Untiered: 1000, Bytes: map[int32]counters{1: {Manifests: 9}, 4: {Replicated: 1000, Footers: 9}}}
	if errs := kept.broken(30*time.Second, 0); len(errs) > 0 {
		t.Errorf("kept: %q", errs)
	}
	for name, spoil := range map[string]func(a *arrival){
		"a record byte": func(a *arrival) { a.Bytes[1] = counters{Records: 1} },
		"too much":      func(a *arrival) { a.Bytes[4] = counters{Replicated: 1001} },
		"too late":      func(a *arrival) { a.ShareSeconds = 31 },
	} {
		a := kept
		a.Bytes = map[int32]counters{1: kept.Bytes[1], 4: kept.Bytes[4]}
		spoil(&a)
		if errs := a.broken(30*time.Second, 0); len(errs) != 1 {
			t.Errorf("%s: %q", name, errs)
		}
	}
}
