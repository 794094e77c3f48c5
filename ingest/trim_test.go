package ingest_test

import (
	"context"
	"testing"
	"time"

	"github.com/varvelog/varve/ingest"
	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/metadata"
	"github.com/varvelog/varve/record"
)

// byHand leaves housekeeping to the test.
var byHand = ingest.Options{TickEvery: time.Hour, RetentionEvery: time.Hour, MaxSealBytes: 8 << 10, TailBytes: 1}

// configure sets one configuration of a topic and waits until its partition goes by it.
func (e *env) configure(tp base.TopicPartition, name, value string) {
	e.t.Helper()
	state, _ := e.meta.Image().Partition(tp)
	p := e.Replica(state.Log)
	before := p.Config()
	r := metadata.Resource{Type: metadata.ResourceTopic, Name: tp.Topic}
	e.check(e.meta.IncrementalAlterConfigs(context.Background(), r, []metadata.ConfigOp{{Name: name, Value: &value}}, false))
	e.until("the partition has its new configuration", func() bool { return p.Config() != before })
}

// coldAndHot returns a topic whose older part is only in the bucket and whose newer part is hot and in the bucket.
func coldAndHot(e *env, store *slowStore, configs map[string]string) (tp base.TopicPartition, hotStart base.Offset) {
	e.t.Helper()
	tp = e.topic("t", configs)
	fill := func() {
		for i := range 40 {
			e.mustPut(tp, batch(e.t, 50, nowTs+int64(i), record.BuildHeader{}))
		}
		if len(tier(e, tp)) < 2 {
			e.t.Fatal("too little to tier")
		}
	}
	fill()
	store.full.Store(true)
	ingest.Housekeep(e.Ingest)
	store.full.Store(false)
	s, err := e.Status(tp)
	e.check(err)
	if s.HotStart == 0 || s.HotStart != s.TieredEnd {
		e.t.Fatalf("the older part is not cold: %+v", s)
	}
	fill()
	return tp, s.HotStart
}

// What is hot of a topic that lets go of its tiered part (KIP-950) is all there is of it: a full disk, the common budget and
// local.retention.* leave it to retention.*. Where it keeps its tiered part they trim as before, and everything stays readable.
func TestDisabledTopicKeepsItsHotPart(t *testing.T) {
	for name, c := range map[string]struct {
		configs  map[string]string
		hotBytes int64
		full     bool
		keeps    bool // its tiered part
	}{
		"full disk":                    {full: true},
		"common budget":                {hotBytes: 1},
		"local.retention.bytes":        {configs: map[string]string{"local.retention.bytes": "1"}},
		"local.retention.ms":           {configs: map[string]string{"local.retention.ms": "1"}},
		"full disk, tiered part stays": {full: true, keeps: true},
	} {
		t.Run(name, func(t *testing.T) {
			opts := byHand
			opts.HotBytes = c.hotBytes
			e, store, _ := newSlowEnv(t, opts)
			configs := map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}
			for k, v := range c.configs {
				configs[k] = v
			}
			tp, hotStart := coldAndHot(e, store, configs)
			e.configure(tp, "remote.log.delete.on.disable", "true")
			e.configure(tp, "remote.storage.enable", "false")
			if c.keeps {
				e.configure(tp, "remote.log.delete.on.disable", "false")
			}
			store.full.Store(c.full)
			for range 2 {
				ingest.Housekeep(e.Ingest)
				ingest.Retain(e.Ingest)
			}
			s, err := e.Status(tp)
			e.check(err)
			if c.keeps {
				if s.LogStart != 0 || s.HotStart != s.TieredEnd {
					t.Errorf("log start %d, hot from %d; the bucket has [0, %d)", s.LogStart, s.HotStart, s.TieredEnd)
				}
				return
			}
			if s.LogStart != hotStart || s.HotStart != hotStart {
				t.Fatalf("log start %d, hot from %d, want both %d, where the cold part ends", s.LogStart, s.HotStart, hotStart)
			}
			if bs := e.readAll(tp); len(bs) == 0 || bs[0].BaseOffset() != hotStart || bs[len(bs)-1].NextOffset() != s.LogEnd {
				t.Errorf("%d batches are left of [%d, %d)", len(bs), hotStart, s.LogEnd)
			}
			e.configure(tp, "retention.bytes", "20000")
			ingest.Retain(e.Ingest)
			ingest.Housekeep(e.Ingest)
			if s, err = e.Status(tp); err != nil || s.LogStart <= hotStart || s.HotStart != s.LogStart || s.HotBytes < 20000 {
				t.Errorf("retention.* does not trim: %+v, %v", s, err)
			}
		})
	}
}

// A replica of such a topic that starts over begins where its leader's log does: what is tiered of it does not count, and records
// that retention keeps would have no other copy than the leader's.
func TestReplicaOfADisabledTopicStartsOver(t *testing.T) {
	e, tp := newFollower(t, 3, byHand)
	state, _ := e.meta.Image().Partition(tp)
	p := e.Replica(state.Log)
	f := func(leaderStart, want base.Offset) {
		t.Helper()
		_, err := ingest.StartOver(e.Ingest, p, 3, 0, leaderStart, ingest.FollowerStart{At: 48})
		e.check(err)
		if s := p.Status(); s.LogEnd != want || s.HotStart != want {
			t.Errorf("the leader starts at %d: [%d, %d), want %d", leaderStart, s.HotStart, s.LogEnd, want)
		}
	}
	f(20, 48)
	e.configure(tp, "remote.log.delete.on.disable", "true")
	e.configure(tp, "remote.storage.enable", "false")
	f(20, 20)
	f(-1, 20) // the leader says next where it starts
}

// Until retention has moved its log start offset, the leader of such a topic sends followers to what it has.
func TestLeaderOfADisabledTopicSendsFollowersToItsHotPart(t *testing.T) {
	e, store, _ := newSlowEnv(t, byHand)
	tp, hotStart := coldAndHot(e, store, map[string]string{"retention.ms": "-1", "retention.bytes": "-1"})
	p := e.part(tp)
	if got := p.BatchStart(0); got != 0 {
		t.Errorf("tiered: %d", got)
	}
	e.configure(tp, "remote.log.delete.on.disable", "true")
	e.configure(tp, "remote.storage.enable", "false")
	if got := p.BatchStart(0); got != hotStart {
		t.Errorf("not tiered any more: %d, want %d", got, hotStart)
	}
}
