package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/varvelog/varve/cmd/varve/load"
	"github.com/varvelog/varve/internal/testutil/proc"
)

// system is a broker under measurement.
type system struct {
	*proc.Process
	adm *kadm.Client
}

func startSystem(ctx context.Context, o options, name, dir string) (*system, error) {
	var p *proc.Process
	var err error
	if name == "kafka" {
		p, err = proc.StartKafka(ctx, proc.KafkaOptions{Libs: o.libs, Dir: dir})
	} else {
		set := map[string]string{}
		for _, kv := range o.set {
			k, v, _ := strings.Cut(kv, "=")
			set[k] = v
		}
		p, err = proc.StartVarve(ctx, proc.VarveOptions{Binary: o.varve, Dir: dir, Set: set})
	}
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.KafkaAddr))
	if err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return &system{p, kadm.NewClient(cl)}, nil
}

// Stop ends the broker.
func (s *system) Stop(patience time.Duration) error {
	s.adm.Close()
	return s.Process.Stop(patience)
}

// topic creates a topic and waits until all of its leaders answer.
func (s *system) topic(ctx context.Context, name string, partitions int32) error {
	if _, err := s.adm.CreateTopic(ctx, partitions, 1, nil, name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return poll(ctx, 60*time.Second, func() error { // a leader that answers, not only one that is named
		listed, err := s.adm.ListEndOffsets(ctx, name)
		if err == nil {
			err = listed.Error()
		}
		if got := len(listed[name]); err == nil && got != int(partitions) {
			err = fmt.Errorf("%d of %d partitions answer", got, partitions)
		}
		return err
	})
}

// snapshot is what the broker has used since its start, and where the bytes that it wrote have gone, as far as it says so.
type snapshot struct {
	load.Usage
	written map[string]float64 // by part; of Varve only
}

func (s *system) usage() (snapshot, error) {
	u, err := load.ReadUsage(s.PID())
	if err != nil || s.HTTPAddr == "" {
		return snapshot{Usage: u}, err
	}
	written, err := s.written()
	return snapshot{u, written}, err
}

// parts name the metrics that count bytes written to disk. With the default bucket, a local directory, what goes to the
// object store is written by this process too.
var parts = map[string]string{
	`varve_hot_written{part="wal"}`:        "WAL",
	`varve_hot_written{part="flush"}`:      "flush",
	`varve_hot_written{part="compaction"}`: "compaction",
	"varve_tiering_uploaded_bytes":         "bucket",
}

func (s *system) written() (map[string]float64, error) {
	resp, err := http.Get("http://" + s.HTTPAddr + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		name, value, _ := strings.Cut(in.Text(), " ")
		part, known := parts[name]
		if !known { // labels differ, the name does not
			bare, _, _ := strings.Cut(name, "{")
			part, known = parts[bare]
		}
		if known {
			n, _ := strconv.ParseFloat(value, 64) // the page is our own
			out[part] += n
		}
	}
	return out, nil
}

// tiers sums up what Varve says about a topic.
type tiers struct{ highWatermark, tieredEnd, hotStart, tieredBytes int64 }

func (s *system) tiers(ctx context.Context, topic string) (tiers, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTPAddr+"/v1/topics/"+topic, nil)
	if err != nil {
		return tiers{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return tiers{}, err
	}
	defer resp.Body.Close()
	var answer struct {
		Partitions []struct{ HighWatermark, TieredEndOffset, HotStartOffset, TieredBytes int64 }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return tiers{}, fmt.Errorf("GET %s: %s: %w", req.URL, resp.Status, err)
	}
	var t tiers
	for _, p := range answer.Partitions {
		t.highWatermark += p.HighWatermark
		t.tieredEnd += p.TieredEndOffset
		t.hotStart += p.HotStartOffset
		t.tieredBytes += p.TieredBytes
	}
	return t, nil
}

// makeCold has Varve offload and trim all of a topic. Apache Kafka has no such tier: its oldest data is on its own disk.
func (s *system) makeCold(ctx context.Context, topic string) error {
	if s.Name == "kafka" {
		return nil
	}
	soon, lag := "1000", "1000"
	res, err := s.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "local.retention.ms", Value: &soon}, {Op: kadm.SetConfig, Name: "varve.tiering.max.lag.ms", Value: &lag},
	}, topic)
	for _, r := range res {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		return fmt.Errorf("make %s cold: %w", topic, err)
	}
	return poll(ctx, 2*time.Minute, func() error {
		t, err := s.tiers(ctx, topic)
		if err == nil && (t.tieredEnd < t.highWatermark || t.hotStart < t.highWatermark*99/100) {
			err = fmt.Errorf("%s is not cold: %d records, tiered %d, trimmed %d", topic, t.highWatermark, t.tieredEnd, t.hotStart)
		}
		return err
	})
}

// poll asks until the answer is nil.
func poll(ctx context.Context, patience time.Duration, ask func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("after %s: %w", patience, err)
		case <-tick.C:
		}
	}
}
