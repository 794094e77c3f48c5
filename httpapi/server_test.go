package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

func serve(t *testing.T, o Options) (base string) {
	t.Helper()
	o.Addr = "127.0.0.1:0"
	s := New(o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestReadyzFollowsReady(t *testing.T) {
	var why atomic.Pointer[string]
	base := serve(t, Options{Ready: func() error {
		if p := why.Load(); p != nil {
			return errors.New(*p)
		}
		return nil
	}})
	f := func(path string, wantCode int, wantText string) {
		t.Helper()
		if code, text := get(t, base+path); code != wantCode || text != wantText {
			t.Errorf("%s: %d %q, want %d %q", path, code, text, wantCode, wantText)
		}
	}
	f("/readyz", 200, "ready")
	full := "disk is full: free 2 GB below /data"
	why.Store(&full)
	f("/readyz", 503, full)
	f("/healthz", 200, "ok")
	why.Store(nil)
	f("/readyz", 200, "ready")
}

func TestTopics(t *testing.T) {
	base := serve(t, Options{Topics: func(name string) (any, error) {
		switch name {
		case "a.b":
			return Topic{Name: name, Partitions: []Partition{{Partition: 3, HotStartOffset: 10, TieredEndOffset: 12}}}, nil
		case "broken":
			return nil, errors.New("no quorum")
		}
		return nil, fmt.Errorf("topic %q: %w", name, ErrNotFound)
	}})
	code, body := get(t, base+"/v1/topics/a.b")
	var got Topic
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || got.Partitions[0].TieredEndOffset != 12 {
		t.Errorf("%d %s: %v", code, body, err)
	}
	if code, body := get(t, base+"/v1/topics/none"); code != 404 || !strings.Contains(body, "none") {
		t.Errorf("missing topic: %d %s", code, body)
	}
	if code, body := get(t, base+"/v1/topics/broken"); code != 500 || !strings.Contains(body, "no quorum") {
		t.Errorf("failing look-up: %d %s", code, body)
	}
}

func TestProfilerOnlyWhenAsked(t *testing.T) {
	if code, _ := get(t, serve(t, Options{})+"/debug/pprof/"); code != 404 {
		t.Errorf("without the option: %d", code)
	}
	if code, _ := get(t, serve(t, Options{Profiling: true})+"/debug/pprof/"); code != 200 {
		t.Errorf("with the option: %d", code)
	}
}

func TestMetricsHandler(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, 200, "varve_x 1") })
	if code, text := get(t, serve(t, Options{Metrics: h})+"/metrics"); code != 200 || text != "varve_x 1" {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := get(t, serve(t, Options{})+"/metrics"); code != 404 {
		t.Errorf("without a handler: %d", code)
	}
}

func TestStartOnATakenAddressNamesIt(t *testing.T) {
	addr := strings.TrimPrefix(serve(t, Options{}), "http://")
	s := New(Options{Addr: addr})
	if err := s.Start(); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("got %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop of what never started: %v", err)
	}
}
